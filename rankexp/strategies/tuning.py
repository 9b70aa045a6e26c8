"""Tuning one candidate within the runs that a question allows."""

from __future__ import annotations

from collections.abc import Sequence

from rankexp.analysis.screen import ScreenRow, best_rate
from rankexp.strategies.base import Found, Question, Rounds, Search
from rankexp.strategies.grid import Grid
from rankexp.strategies.setting import Candidate, Setting


def tuned_rate(candidate: Candidate, question: Question, alpha: float) -> Rounds[list[ScreenRow]]:
    """Try the learning rates of the question, widened where the best lies on their edge, and return what they gave."""
    return Grid((candidate,), question.learning_rates, (alpha,), question.widen).rounds(question.trials)


def tuned(candidate: Candidate, question: Question) -> Search:
    """Tune a candidate with as many runs as the question allows, and return its best setting.

    First the learning rates of the grid, widened where the best lies on its edge; with what is left, at the best rate,
    twice and half the alpha, then four times and a quarter, and so on.
    """
    rows = yield from tuned_rate(candidate, question, question.alpha)
    rate, trials = best_setting(candidate, rows).learning_rate, question.trials or 0
    alphas = (question.alpha * factor for power in range(1, trials) for factor in (2**power, 2**-power))
    if more := [candidate.at(rate, other) for _, other in zip(range(trials - len(rows)), alphas, strict=False)]:
        rows += yield more
    return Found.one(best_setting(candidate, rows))


def best_setting(candidate: Candidate, rows: Sequence[ScreenRow]) -> Setting:
    """Return a candidate at the rate and alpha of its best row; at the lowest rate where no run completed."""
    row = best_rate(rows).get(candidate.name) or min(rows, key=lambda row: row.learning_rate)
    return candidate.at(row.learning_rate, row.alpha)
