"""Time and weigh the report of 2,000 stored trials with 2,000 scores each; the trials are made up. Run.

python bench/report_speed.py [FOLDER]

They are made in FOLDER unless they are there already, so that two versions of rankexp can read the same ones in turn.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from rankexp.analysis.study import load_study
from rankexp.report.build import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def main(workspace: Path) -> None:
    from fake_study import make_study

    study = workspace / "studies" / "fake-01234567"
    if not study.exists():
        make_study(workspace, seeds=496, examples=2000)
    started, worked = time.perf_counter(), time.process_time()
    loaded = load_study(study)
    page = write_report(loaded)
    found = {
        "trials": len(loaded.by_key),
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "html_megabytes": round(page.stat().st_size / 1e6, 1),
        "peak_megabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1:]:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(Path(folder))
