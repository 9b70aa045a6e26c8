"""Lanes: side by side, and all stopped by the first failure."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass

import pytest

from rankexp.study.execution.lanes import Lanes, StoppedError


@dataclass
class Model:
    """Stands where a bench would: lanes only lend and copy it."""

    loads: list[int]

    def copy(self) -> Model:
        return Model(self.loads)


def lanes(count: int) -> tuple[Lanes, list[int]]:
    loads: list[int] = []

    def load() -> Model:
        loads.append(1)
        return Model(loads)

    return Lanes(load, count), loads  # type: ignore[arg-type, return-value]


def test_work_runs_side_by_side_on_benches_of_its_own() -> None:
    pool, loads = lanes(2)
    together, used = threading.Barrier(2, timeout=5), []

    def work(_: int) -> None:
        with pool.bench() as bench:
            together.wait()
            used.append(id(bench))

    pool.map(work, [1, 2])
    assert len(set(used)) == 2
    assert loads == [1], "the model is read from disk once"


def test_the_first_failure_ends_the_others_at_their_next_step_and_is_raised() -> None:
    pool, _ = lanes(2)
    ended, begun = [], []

    def work(item: int) -> None:
        begun.append(item)
        if item == 0:
            raise OSError("disk full")
        try:
            for _ in range(500):
                pool.check()
                time.sleep(0.01)
        except StoppedError:
            ended.append(item)
            raise

    with pytest.raises(OSError, match="disk full"):
        pool.map(work, [0, 1, 2, 3, 4])
    assert set(ended) <= {1, 2}, "at most what was running when the first failed"
    assert len(begun) < 5


def test_one_lane_works_in_order_beside_the_main_thread_which_hears_interruptions() -> None:
    pool, _ = lanes(1)
    seen: list[int] = []

    def work(item: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        seen.append(item)

    pool.map(work, [3, 1, 2])
    assert seen == [3, 1, 2]


def test_an_interruption_lets_the_only_lane_end_its_step() -> None:
    pool, _ = lanes(1)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    steps: list[str] = []

    def work(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        steps.extend(["begun", "ended"])
        while True:
            pool.check()
            time.sleep(0.01)

    try:
        with pytest.raises(KeyboardInterrupt):
            pool.map(work, [0])
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps == ["begun", "ended"]
