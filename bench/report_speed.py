"""Time and weigh the report of 2,000 stored trials with 2,000 scores each; the trials are made up. Run.

python bench/report_speed.py
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from rankexp.analysis.study import load_study
from rankexp.report.build import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main() -> None:
    from fake_study import make_study

    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder), seeds=496, examples=2000)
        started = time.perf_counter()
        loaded = load_study(study)
        page = write_report(loaded)
        seconds = time.perf_counter() - started
        size = round(page.stat().st_size / 1e6, 1)
        print(json.dumps({"trials": len(loaded.by_key), "seconds": round(seconds, 1), "html_megabytes": size}))


if __name__ == "__main__":
    main()
