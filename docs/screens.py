"""Pictures of a report at the width of a phone and of a desk, light and dark, after checking that nothing overflows.

    python docs/screens.py runs/studies/rank_grid-01234567/report/report.html

Needs chromium. Writes docs/screens/<width>-<theme>.png.
"""

from __future__ import annotations

import argparse
import html
import io
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
THEMES = {"light": (), "dark": ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")}
WIDTHS = (390, 1280)
COLOURS = 256
MEASURE = """<!DOCTYPE html><body style="margin:0"><iframe style="width:{width}px;height:900px;border:0"
srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe").contentDocument;
  const inner = [...frame.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg"));
  const right = inner.map(e => Math.ceil(e.getBoundingClientRect().right));
  const root = frame.documentElement;
  document.title = `width=${{Math.max(root.scrollWidth, ...right)}} height=${{root.scrollHeight}}`;
}});
</script></body>"""


def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("screens.py needs chromium on the PATH.")
    return found


def chromium(profile: Path, *arguments: str) -> str:
    command = [browser(), *FLAGS, f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout


def measured(page: str, width: int, folder: Path) -> tuple[int, int]:
    """Width that the content takes and height of the page, at a window of ``width`` pixels."""
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.format(width=width, page=html.escape(page)), encoding="utf-8")
    dom = chromium(folder / "profile", "--dump-dom", wrapper.as_uri())
    found = re.search(r"<title>width=(\d+) height=(\d+)</title>", dom)
    assert found is not None, "the page did not load"
    return int(found[1]), int(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "screens")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width in WIDTHS:
            taken, height = measured(page, width, folder)
            assert taken <= width, f"the page takes {taken} pixels of {width}"
            for theme, flags in THEMES.items():
                shot = folder / "shot.png"
                view = (f"--window-size={width},{height}", f"--screenshot={shot}")
                chromium(folder / "profile", *flags, *view, options.report.absolute().as_uri())
                small = io.BytesIO()
                Image.open(shot).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
                target = options.out / f"{width}-{theme}.png"
                target.write_bytes(small.getvalue())
                print(f"{target.name}: {width} x {height}, no overflow, {len(small.getvalue()) // 1000} kB")


if __name__ == "__main__":
    main()
