"""Everything the project promises about speed, beside its peers: rates, shares of the measured limit, errors, ratios.

    ulpgrad bench peers [WORDS] [--json FILE] [--html FILE] [--threads N] [--quick]
    ulpgrad bench sweep [WORDS] [--json FILE] [--html FILE]

One file for each kind of row (`values`, `products`, `rows`, `steps`); `table` joins them, `sweeps` varies their sizes.
Every output is checked before it is timed: bit for bit where there is one right answer, else against float64, and the
error is part of the table. Samples of all contenders are taken in turns, so that they meet the same machine, each after a
rest in which the threads of the one before stop spinning; medians are compared. With one thread the processor's time is
counted instead of the clock's, so that other programs do not blur it. Peers are used where they are installed: torch,
torchao, JAX, ONNX Runtime, apytypes.
"""
