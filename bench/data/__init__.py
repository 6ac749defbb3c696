"""Data that ships with the studies.

`coriolanus.txt` is the beginning of "The Tragedy of Coriolanus" (W. Shakespeare, about 1608; in the public domain), to the
first scene of act IV, as it opens the "tiny Shakespeare" collection of A. Karpathy's char-rnn: 98,127 characters, 61
different ones.
"""

from __future__ import annotations

from pathlib import Path


def coriolanus() -> str:
    """The text."""
    return (Path(__file__).parent / "coriolanus.txt").read_text(encoding="ascii")


__all__ = ["coriolanus"]
