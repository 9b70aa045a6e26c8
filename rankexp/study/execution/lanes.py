"""Trials side by side on one machine: each lane has a copy of the base model and trains one pack at a time.

On a processor a lane is one thread. Two lanes of one thread finish more trials than one lane of two threads, because
the products of a small model are too short to share. The same spec on the same number of threads gives the same bits.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rankexp.training.bench import Bench

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(BaseException):
    """A lane ends because another failed or the command was interrupted; not a failure of its trial."""


class Lanes:
    """A pool of benches.

    Args:
        load: Loads the model and data; called once, when a bench is first needed, and before anything trains:
            building a model uses the generators and defaults of the whole process.
        count: Number of lanes.
        pack: Most trials of a lane at a time; None for as many as a GPU's memory holds.
    """

    def __init__(self, load: Callable[[], Bench], count: int, pack: int | None = 1) -> None:
        self._load, self._loading, self._loaded = load, threading.Lock(), False
        self._benches: queue.LifoQueue[Bench] = queue.LifoQueue()
        self.count, self.pack = count, pack
        self.stopping = threading.Event()

    @contextmanager
    def bench(self) -> Iterator[Bench]:
        """Lend a bench that nobody else uses."""
        self._fill()
        bench = self._benches.get()
        try:
            yield bench
        finally:
            self._benches.put(bench)

    def _fill(self) -> None:
        with self._loading:
            if not self._loaded:
                first = self._load()
                for bench in [first, *(first.copy() for _ in range(1, self.count))]:
                    self._benches.put(bench)
                self._loaded = True

    def check(self) -> None:
        """Raise in a lane that should end."""
        if self.stopping.is_set():
            raise StoppedError

    def map(self, work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Do ``work`` on every item, as many at a time as there are lanes, and return what came of each.

        The first failure, or an interruption of the main thread, ends all lanes at their next step and is raised. For
        that the main thread never works itself: an interruption in the middle of a step would leave nothing to save.
        """
        self.stopping.clear()
        with ThreadPoolExecutor(self.count, thread_name_prefix="lane") as pool:
            try:
                futures = [pool.submit(work, item) for item in items]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                _raise_first(done)
                return [future.result() for future in futures]
            except BaseException:
                self.stopping.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise


def _raise_first(futures: set[Future[R]]) -> None:
    for future in futures:
        if (error := future.exception()) is not None and not isinstance(error, StoppedError):
            raise error
