"""How much sooner do two workers finish a study than one?

The default model and data, 24 trials of --steps steps: four ranks at three rates, then with three seeds; one thread and
one lane a worker in both arms. Wall-clock seconds of the whole command, start-up, report and all, in fresh workspaces;
the arms take turns. Run:

    python bench/workers.py --rounds 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

OPTIONS = [
    "references=none",
    "search.widen=0",
    "decide.seeds=3",
    "tracking=none",
    "device=cpu",
    "jobs=1",
    "threads=1",
    "launcher=local",
]


def run(workers: int, steps: int) -> tuple[float, int]:
    """Run the study in a fresh workspace; return seconds and the number of trials."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "rankexp", "sweep", *OPTIONS, f"train.steps={steps}", f"workers={workers}"]
        began = time.perf_counter()
        subprocess.run([*words, f"workspace={folder}"], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began, len(list(Path(folder).glob("trials/*/result.json")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    for number in range(options.rounds):
        order = (1, 2) if number % 2 == 0 else (2, 1)
        found = {workers: run(workers, options.steps) for workers in order}
        (one, trials), (two, same) = found[1], found[2]
        print(
            json.dumps(
                {
                    "round": number,
                    "trials": [trials, same],
                    "one": round(one, 1),
                    "two": round(two, 1),
                    "ratio": round(two / one, 3),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
