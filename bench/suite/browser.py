"""Reports in a real browser, without a screen: what they look like on a phone, a tablet, a desktop and paper.

    python -m ulpgrad.bench.suite.browser PAGE FOLDER

writes PAGE-390.png, PAGE-820.png, PAGE-1440.png, PAGE-dark.png and PAGE.pdf into FOLDER.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulpgrad.errors import DataError

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS = (390, 820, 1440)
TALLEST = 16_000  # pixels of a picture
PATIENCE = 120  # seconds
QUIET = (
    "--headless",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-extensions",
    "--no-pdf-header-footer",
)
DARK = "--blink-settings=preferredColorScheme=0"
PROBE = """
<script>addEventListener("load", () => parent.postMessage({ at: %d, seen: (%s)() }, "*"));</script>
"""
FRAMES = """<!DOCTYPE html><title>frames</title><body><script>
const told = [];
addEventListener("message", (event) => {
  told.push(event.data);
  const text = document.createElement("pre");
  text.id = `told-${told.length}`;
  text.textContent = JSON.stringify(told);
  document.body.append(text);
});</script>
%s</body>"""
SIZES = """() => ({
  width: innerWidth, needed: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
  over: [...document.querySelectorAll("main *")].filter((e) => !e.closest(".wide, .pan, svg")
    && e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80)),
  pictures: [...document.querySelectorAll("figure svg")].map((e) => e.getBoundingClientRect().height),
})"""


@dataclass(frozen=True)
class Browser:
    """A browser that runs without a screen."""

    program: str

    def asked(self, page: str, widths: Sequence[int], question: str = SIZES) -> list[Any]:
        """What a function in JavaScript gives, once a page (its HTML) has been laid out, at each of some widths."""
        with tempfile.TemporaryDirectory() as folder:
            frames = []
            for i, width in enumerate(widths):  # windows have a least width, frames have none
                (Path(folder) / f"{i}.html").write_text(page.replace("</body>", f"{PROBE % (i, question)}</body>"))
                frames.append(f'<iframe src="{i}.html" style="width: {width}px; height: 1000px; border: 0"></iframe>')
            whole = Path(folder) / "frames.html"
            whole.write_text(FRAMES % "".join(frames))
            shown = self._run(folder, "--dump-dom", "--virtual-time-budget=20000", whole.as_uri())
        told = re.search(rf'<pre id="told-{len(widths)}">(.*?)</pre>', shown, re.DOTALL)
        if told is None:
            raise DataError(f"{self.program}: the page was not laid out, or its question failed")
        answers = {answer["at"]: answer["seen"] for answer in json.loads(html.unescape(told[1]))}
        return [answers[i] for i in range(len(widths))]

    def picture(self, page: Path, file: Path, width: int, height: int, *, dark: bool = False) -> Path:
        """A page as PNG, as much of it as fits the height."""
        with tempfile.TemporaryDirectory() as folder:
            self._run(folder, *([DARK] if dark else []), f"--window-size={width},{height}",
                      f"--screenshot={file.resolve()}", page.resolve().as_uri())  # fmt: skip
        return _made(file)

    def printed(self, page: Path, file: Path) -> Path:
        """The page on paper, as PDF."""
        with tempfile.TemporaryDirectory() as folder:
            self._run(folder, f"--print-to-pdf={file.resolve()}", page.resolve().as_uri())
        return _made(file)

    def _run(self, profile: str, *arguments: str) -> str:
        sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        command = [self.program, *QUIET, *sandbox, f"--user-data-dir={profile}/profile", *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
        except (OSError, subprocess.SubprocessError) as error:
            raise DataError(f"{self.program}: {error}") from None


def _made(file: Path) -> Path:
    if not file.exists():
        raise DataError(f"{file}: the browser has not written it")
    return file


def found() -> Browser | None:
    """The browser of this machine; None where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    return Browser(program) if program else None


def look(page: Path, folder: Path) -> list[Path]:
    """Pictures of a page at three widths, one in the dark, and its print. DataError where there is no browser."""
    browser = found()
    if browser is None:
        raise DataError("no browser: install chromium (on Debian: apt-get install chromium)")
    folder.mkdir(parents=True, exist_ok=True)
    heights = [min(seen["height"], TALLEST) for seen in browser.asked(page.read_text(), WIDTHS)]
    made = [
        browser.picture(page, folder / f"{page.stem}-{width}.png", width, height)
        for width, height in zip(WIDTHS, heights, strict=True)
    ]
    dark = browser.picture(page, folder / f"{page.stem}-dark.png", WIDTHS[-1], heights[-1], dark=True)
    return [*made, dark, browser.printed(page, folder / f"{page.stem}.pdf")]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python -m ulpgrad.bench.suite.browser PAGE FOLDER")
    if found() is None:
        print("pictures of the page: SKIPPED: no browser (on Debian: apt-get install chromium)", file=sys.stderr)
        raise SystemExit
    for path in look(Path(sys.argv[1]), Path(sys.argv[2])):
        print(path)

__all__ = ["WIDTHS", "Browser", "found", "look"]
