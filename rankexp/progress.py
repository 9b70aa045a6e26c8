"""What a person sees while a study runs: a live view in a terminal, a plain line for each trial elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from rankexp.safety.printable import printable


class Display:
    """Shows how far a study is: trials done, the time left, and of each running trial its step and loss.

    Safe to use from several threads.

    Args:
        stream: Where to write; a live view if it is a terminal, else a line for each trial.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True, markup=False)
        self.view = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.total = self.view.add_task("trials", total=None, now="")
        self.expected, self.done, self.trained = 0, 0, 0
        self.began: float | None = None
        self.lock = threading.Lock()

    def __enter__(self) -> Display:
        self.view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.view.stop()

    def say(self, text: str) -> None:
        """Print a line, whatever names of others are in it."""
        self.console.print(printable(text))

    def expect(self, trials: int) -> None:
        """Set how many trials the study will have, as far as is known."""
        self.expected = max(trials, self.done)
        self.view.update(self.total, total=self.expected)

    def expect_more(self, trials: int) -> None:
        """Add trials that the study turned out to need."""
        self.expect(self.expected + trials)

    def begin(self, label: str, steps: int) -> TrialLine:
        """Show that a trial starts, and return its line."""
        self.began = self.began or time.perf_counter()
        return TrialLine(self, label, self.view.add_task(f"  {printable(label)}", total=steps, now=""))

    def skip(self) -> None:
        """Count a trial that was already in the record."""
        self._count(0)

    def end(self, label: str, outcome: str) -> None:
        """Print what came of a trial that was trained."""
        self._count(1)
        self.say(f"[{self.done}/{self.expected}] {label}  {outcome}  {self._left()}".rstrip())

    def _count(self, trained: int) -> None:
        with self.lock:
            self.done, self.trained = self.done + 1, self.trained + trained
            self.expected = max(self.expected, self.done)
        self.view.update(self.total, completed=self.done, total=self.expected, now=self._left())

    def _left(self) -> str:
        if not self.trained or self.began is None or self.expected == self.done:
            return ""
        pace = (time.perf_counter() - self.began) / self.trained
        return f"about {duration(pace * (self.expected - self.done))} left"


@dataclass(frozen=True)
class TrialLine:
    """The line of one running trial.

    Attributes:
        display: Where it is shown.
        label: What the trial is called.
        task: Its place in the live view.
    """

    display: Display
    label: str
    task: TaskID

    def step(self, row: Mapping[str, float]) -> None:
        """Show a step."""
        self.display.view.update(self.task, completed=int(row["step"]), now=f"loss {row['loss']:.3f}")

    def close(self) -> None:
        """Take the line away."""
        self.display.view.remove_task(self.task)


def duration(seconds: float) -> str:
    """Say a duration in the unit that fits.

    >>> duration(45), duration(130), duration(7300)
    ('45 s', '2 min', '2 h 2 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
