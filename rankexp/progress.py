"""What a person sees while a study runs: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Display:
    """Shows how far a study is: trials done, the current trial's step and loss, and the time left.

    Args:
        stream: Where to write; a live line if it is a terminal, else a line for each trial.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True, markup=False)
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.live,
        )
        self.task = self.bar.add_task("trials", total=None, now="")
        self.expected, self.done, self.trained = 0, 0, 0
        self.seconds, self.started = 0.0, time.perf_counter()
        self.label, self.steps = "", 0

    def __enter__(self) -> Display:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text)

    def expect(self, trials: int) -> None:
        """Set how many trials the study will have, as far as is known."""
        self.expected = max(trials, self.done)
        self.bar.update(self.task, total=self.expected)

    def begin(self, label: str, steps: int) -> None:
        """Show that a trial starts."""
        self.label, self.steps, self.started = label, steps, time.perf_counter()
        self.bar.update(self.task, now=label)

    def step(self, row: Mapping[str, float]) -> None:
        """Show a step of the current trial."""
        now = f"{self.label}  step {int(row['step'])}/{self.steps}  loss {row['loss']:.3f}  {self._left()}"
        self.bar.update(self.task, now=now)

    def end(self, outcome: str, *, trained: bool) -> None:
        """Show what came of a trial; one that was already in the record counts but takes no time."""
        self.done += 1
        self.bar.update(self.task, completed=self.done)
        if trained:
            self.trained += 1
            self.seconds += time.perf_counter() - self.started
            self.say(f"[{self.done}/{self.expected}] {self.label}  {outcome}  {self._left()}".rstrip())

    def _left(self) -> str:
        if not self.trained:
            return ""
        seconds = self.seconds / self.trained * (self.expected - self.done)
        return f"about {_duration(seconds)} left" if self.expected > self.done else ""


def _duration(seconds: float) -> str:
    """Say a duration in the unit that fits.

    >>> _duration(45), _duration(130), _duration(7300)
    ('45 s', '2 min', '2 h 2 min')
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
