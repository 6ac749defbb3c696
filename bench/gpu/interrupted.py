"""As a plugin of pytest: a run heeds SIGINT, and says what has failed so far, also where the shell that has started it in the
background has told its processes to ignore that signal."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
