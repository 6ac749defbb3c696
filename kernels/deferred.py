"""Questions that a device is asked and the host looks at later, so that no call waits: were all indices in range?

A kernel leaves 0 or 1 in memory, which is copied to the host behind it. The host looks when it waits for that device anyway
(reading a value, `synchronize`), and, without waiting, when backward, an optimizer's step or a replay begins. What went wrong
raises there, as it would have at the call. Indices that are out of range are not followed, but what was computed with them is not
to be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import capture, gpu

MOST = 64  # questions that nobody has looked at, before those that are answered are let go


class Question:
    """One call's: `told` on the host becomes true where `explain()` is to raise; a graph keeps it in `sticky` as well."""

    __slots__ = ("done", "explain", "name", "sticky", "told")

    def __init__(
        self, name: str, told: Any, done: Callable[[], bool], explain: Callable[[], None], sticky: Any = None
    ) -> None:
        self.name, self.told, self.done, self.explain, self.sticky = name, told, done, explain, sticky

    def forget(self) -> None:
        """Note that the host has been told."""
        self.told[0] = 0
        if self.sticky is not None:
            with gpu.on_device(int(self.sticky.device.id)):
                self.sticky.fill(0)


def ask(name: str, failed: Any, explain: Callable[[], None]) -> None:
    """Have `explain()` called, which raises, when the host learns that `failed` (one value on the current device) is not 0."""
    told = gpu.pinned(np.zeros(1, np.int32))
    captured = capture.current()
    if captured is not None:
        sticky = captured.upload(np.zeros(1, np.int32))  # what one replay finds stays until the host has looked
        sticky |= failed.reshape(1).astype(np.int32)
        sticky.get(out=told, blocking=False)
        captured.arrays.append(told)
        question = Question(name, told, captured.is_done, explain, sticky)
        captured.after.append(lambda: _add(question))
        return
    failed.reshape(1).astype(np.int32).get(out=told, blocking=False)
    event = gpu.xp().cuda.Event(disable_timing=True)
    event.record()
    _add(Question(name, told, lambda: bool(event.done), explain))


def _add(question: Question) -> None:
    asked = gpu.state.questions
    if question not in asked:
        asked.append(question)
    if len(asked) > MOST:
        look()


def look() -> None:
    """Raise for what has gone wrong, as far as it is known by now; nothing is waited for."""
    asked = gpu.state.questions
    if not asked or gpu.state.capture is not None:
        return
    answered = [q for q in asked if q.done()]
    gpu.state.questions = [q for q in asked if q not in answered]
    wrong = [q for q in answered if q.told[0]]
    for question in wrong:  # all of them: what follows from the first is not told again
        question.forget()
    if wrong:
        wrong[0].explain()
        raise ArgumentError(
            f"{wrong[0].name}: an index was out of range when the GPU read it, and has been written to since"
        )


__all__ = ["ask", "look"]
