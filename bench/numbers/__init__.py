"""Number systems beside their peers: one table of rates, shares of the measured limit, and ratios taken in one run.

    python -m ulpgrad.bench.numbers [--json FILE] [--threads N] [--quick] [--only WORDS]

Every output is compared with ours before it is timed, bit for bit where a peer computes the same thing. Samples of all
contenders are taken in turns, so that they meet the same machine; medians are compared. With one thread the processor's
time is counted instead of the clock's, so that other programs do not blur it. Peers are used where they are installed: torch,
torchao, apytypes.
"""
