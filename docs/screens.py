"""Pictures of a report at the width of a phone and of a desk, light and dark, after checking that nothing overflows.

    python docs/screens.py runs/studies/rank_grid-01234567/report/report.html

Needs chromium. Writes docs/screens/<width>-<theme>.png.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

THEMES = {"light": (), "dark": ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")}
WIDTHS = (390, 1280)
COLOURS = 256


def main() -> None:
    from chromium import chromium, layout

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "screens")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    page = options.report.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for width in WIDTHS:
            taken, height, _ = layout(folder, page, width)
            assert taken <= width, f"the page takes {taken} pixels of {width}"
            for theme, flags in THEMES.items():
                shot = folder / "shot.png"
                view = (f"--window-size={width},{height}", f"--screenshot={shot}")
                chromium(folder, *flags, *view, options.report.absolute().as_uri())
                small = io.BytesIO()
                Image.open(shot).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
                target = options.out / f"{width}-{theme}.png"
                target.write_bytes(small.getvalue())
                print(f"{target.name}: {width} x {height}, no overflow, {len(small.getvalue()) // 1000} kB")


if __name__ == "__main__":
    main()
