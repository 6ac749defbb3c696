"""The benchmark suite: every op of the registry, in any format, at any size, on any rung, beside its peers.

    ulpgrad bench [OPS] [--formats F,...] [--sizes N,...] [--peers P,...] [--rungs best|all] [--json FILE] [--html FILE]

`record` is what a run leaves behind, and what reports and comparisons read.
"""
