"""A page as headless Chromium lays it out: for the tests, and for the pictures in docs/."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_FRAME = """<!DOCTYPE html><body style="margin:0"><iframe style="width:{width}px;height:900px;border:0"
srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe").contentDocument;
  document.title = (() => {{ {script} }})();
}});
</script></body>"""
MEASURE = """
  const inner = [...frame.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg"));
  const right = inner.map(e => Math.ceil(e.getBoundingClientRect().right)), root = frame.documentElement;
  const figures = [...frame.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().width > 0);
  return [Math.max(root.scrollWidth, frame.body.scrollWidth, ...right), root.scrollHeight, figures.length].join(" ");
"""
"""Returns the width that the content takes, the height of the page and the number of figures that are shown."""


def chromium(folder: Path, *arguments: str) -> str:
    """Run Chromium with a profile in ``folder`` and return what it prints."""
    command = [str(BROWSER), *_FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def answer(folder: Path, page: str, script: str, width: int = 1280) -> str:
    """Lay ``page`` out in a frame of ``width`` pixels and return what ``script``, which sees it as ``frame``, returns."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(_FRAME.format(width=width, page=html.escape(page), script=script), encoding="utf-8")
    dom = chromium(folder, "--dump-dom", wrapper.as_uri())
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found, dom[-500:]
    return found[1]


def layout(folder: Path, page: str, width: int) -> tuple[int, int, int]:
    """Return what :data:`MEASURE` measures."""
    taken, height, figures = answer(folder, page, MEASURE, width).split(" ")
    return int(taken), int(height), int(figures)
