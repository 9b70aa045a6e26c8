"""How many workers does the storage of a study carry?

Workers are processes that train nothing: each trial is only claimed, recorded with all its files, published and given
back, by the code that a study runs, on a real database and a real file system. The first is the leader, which offers
all trials at once, so that the queue is full; the others take what is offered. Claim: from asking for a trial until it
is held. Commit: from asking to publish, with the files written, until the claim is given back and the offer withdrawn.
Both in milliseconds as each worker sees them, waiting for the processor included. Trials that last --pause seconds show
a load that is not limited by the processor. Run (the URL of a PostgreSQL server, or SQLite without):

    python bench/storage.py --trials 5000 --workers 8 --url postgresql://postgres@127.0.0.1/postgres
    python bench/storage.py --trials 5000 --workers 8
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankexp.progress import Display
from rankexp.ranks import RankMap
from rankexp.record.scores import Scores
from rankexp.record.studies import Planned, StudyRecord, StudyStore
from rankexp.record.trial import TrialResult
from rankexp.record.trials import TrialStore
from rankexp.study.coordination.claims import Claims
from rankexp.study.coordination.database import Storage
from rankexp.study.coordination.offers import Offers
from rankexp.study.coordination.read_claims import lead_of
from rankexp.study.coordination.team import Team
from rankexp.study.execution import runner as execution
from rankexp.study.execution.attempt import Attempt
from rankexp.study.execution.audience import Audience
from rankexp.study.execution.lanes import Lanes
from rankexp.study.execution.runner import Runner
from rankexp.tracking import open_tracker
from rankexp.trial_spec import TrialSpec

STUDY = "load-00000000"
MODEL = {"name": "m", "fingerprint": "m", "shapes": {}}
DATA = {"name": "d", "fingerprint": "d", "test_fingerprint": "0" * 20, "splits": {}}
_IDS = np.array([f"example-{i}" for i in range(50)])
SCORES = Scores(_IDS, _IDS, {"accuracy": np.ones(50, dtype=np.float32), "loss": np.zeros(50, dtype=np.float32)})


class FakeBench:
    """Ends every trial that it takes after a pause, with made scores, and notes how long the storage took."""

    packs = False
    device = torch.device("cpu")

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.claim, self.commit, self.keys = list[float](), list[float](), list[str]()

    def train_trials(self, take: Any, store: TrialStore, *_: Any, **__: Any) -> None:
        while jobs := self._timed(self.claim, take):
            (job,) = jobs
            time.sleep(self.pause)
            self._record(job, store)

    def _timed(self, times: list[float], take: Any) -> list[Attempt]:
        began = time.perf_counter()
        jobs: list[Attempt] = take(1, None)
        if jobs:
            times.append(time.perf_counter() - began)
        return jobs

    def _record(self, job: Attempt, store: TrialStore) -> None:
        began = [0.0]

        @contextmanager
        def publishing() -> Iterator[None]:
            began[0] = time.perf_counter()
            with job.publishing():
                yield

        result = TrialResult("completed", metrics={"decide": {"accuracy": 1.0, "loss": 0.0, "examples": 50}})
        trial = store.write(job.spec, result, {"decide": SCORES}, _adapter, publishing())
        job.finish(trial)
        self.commit.append(time.perf_counter() - began[0])
        self.keys.append(job.spec.key)


def _adapter(folder: Path) -> None:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"\0" * 4096)


def work(workspace: Path, number: int, trials: int, workers: int, pause: float) -> dict[str, Any]:
    """Be one of the workers."""
    claims = Claims(Storage.of(workspace))
    store = StudyStore(workspace / "studies" / STUDY)
    bench = FakeBench(pause)
    execution.train_trials = FakeBench.train_trials  # type: ignore[assignment]
    team = Team(claims, Offers(claims, STUDY), size=lambda: workers)
    audience = Audience(Display(io.StringIO()), open_tracker("none", None, workspace), store)
    lanes = Lanes(lambda: bench, 1)  # type: ignore[arg-type, return-value]
    runner = Runner(store, TrialStore(workspace), lanes, team, audience)
    began = time.perf_counter()
    if number == 0:
        token = claims.take(lead_of(STUDY))
        assert token is not None
        made = [replace(_spec(), seed=seed) for seed in range(trials)]
        runner.run_all([(Planned(spec.key, "decide", "r=4", 4, "evidence"), spec) for spec in made])
        claims.release(lead_of(STUDY), token, done=True)
    else:
        while claims.holder(lead_of(STUDY)) is None:
            time.sleep(0.1)
        runner.help(lambda: claims.holder(lead_of(STUDY)) is not None)
    seconds = time.perf_counter() - began
    claims.close()
    return {"claim": bench.claim, "commit": bench.commit, "keys": bench.keys, "seconds": seconds}


def _spec() -> TrialSpec:
    """A trial with as many layers as MiniLM has."""
    ranks = {f"encoder.layer.{layer}.attention.self.{name}": 4 for layer in range(6) for name in "qkvoud"}
    return TrialSpec(
        model="m", data="d", task="t", method="lora", rank_map=RankMap(ranks), learning_rate=1e-3, steps=60,
        evaluate=("decide",),
    )  # fmt: skip


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start the workers on a fresh workspace and put together what they say."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        Storage.of(workspace, options.url)
        StudyStore(workspace / "studies" / STUDY).write(StudyRecord(STUDY, {}, MODEL, DATA, {}))
        words = [sys.executable, __file__, "--workspace", folder, "--trials", str(options.trials)]
        words += ["--workers", str(options.workers), "--pause", str(options.pause)]
        started = [
            subprocess.Popen([*words, "--number", str(number)], stdout=subprocess.PIPE, text=True)
            for number in range(options.workers)
        ]
        found = [json.loads(process.communicate()[0]) for process in started]
        recorded = len(list(TrialStore(workspace).keys()))
    often = Counter(key for one in found for key in one["keys"])
    summary: dict[str, Any] = {
        "trials": options.trials,
        "workers": options.workers,
        "pause": options.pause,
        "database": "PostgreSQL" if options.url else "SQLite",
        "recorded": recorded,
        "lost": options.trials - len(often),
        "twice": sum(count > 1 for count in often.values()),
        "by_worker": [len(one["keys"]) for one in found],
        "trials_per_second": round(options.trials / max(one["seconds"] for one in found), 1),
    }
    parts = {name: np.concatenate([one[name] for one in found]) * 1000 for name in ("claim", "commit")}
    for name, times in parts.items():
        summary[f"{name}_ms"] = [round(float(np.percentile(times, p)), 1) for p in (50, 95, 99)]
    both = np.concatenate([np.array(one["claim"]) + np.array(one["commit"]) for one in found]) * 1000
    summary["claim_plus_commit_ms"] = [round(float(np.percentile(both, p)), 1) for p in (50, 95, 99)]
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a trial lasts (default 0)")
    parser.add_argument("--url", help="storage (default: SQLite in the workspace)")
    parser.add_argument("--workspace", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--number", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.number is not None:
        found = work(options.workspace, options.number, options.trials, options.workers, options.pause)
        print(json.dumps(found))
    else:
        print(json.dumps(run(options)))


if __name__ == "__main__":
    main()
