"""What the searched parameters were worth, on screens whose answer is known."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import product

import pytest

from rankexp.analysis.screen import ScreenRow
from rankexp.study.search.importance import importance

Loss = Callable[[int, float, float], float]
RANKS, ALPHAS, RATES = (4, 8, 16, 32), (8.0, 16.0, 32.0), (1e-4, 1e-3, 1e-2, 1e-1)


def row(rank: int, alpha: float, rate: float, loss: float | None) -> ScreenRow:
    status = "diverged" if loss is None else "completed"
    return ScreenRow(f"r={rank}", rank, rate, alpha, status, loss, key=f"{rank}-{alpha}-{rate}")


def grid(loss: Loss) -> list[ScreenRow]:
    return [row(*cell, loss(*cell)) for cell in product(RANKS, ALPHAS, RATES)]


def sampled(loss: Loss, runs: int = 24) -> list[ScreenRow]:
    draw = random.Random(3)
    cells = [(draw.choice(RANKS), draw.choice(ALPHAS), 10 ** draw.uniform(-4, -1)) for _ in range(runs)]
    return [row(*cell, loss(*cell)) for cell in cells]


def by_rate(rank: int, alpha: float, rate: float) -> float:
    return abs(math.log10(rate) + 2.5)


def by_rank(rank: int, alpha: float, rate: float) -> float:
    return 1 / rank


def by_alpha(rank: int, alpha: float, rate: float) -> float:
    return abs(alpha - 8)


@pytest.mark.slow
@pytest.mark.parametrize("screen", [grid, sampled])
@pytest.mark.parametrize(("loss", "cause"), [(by_rate, "learning_rate"), (by_rank, "rank"), (by_alpha, "alpha")])
def test_the_only_cause_has_by_far_the_largest_share(
    screen: Callable[[Loss], list[ScreenRow]], loss: Loss, cause: str
) -> None:
    found = importance(screen(loss))
    assert found is not None
    shares = found["shares"]
    assert list(shares) == ["rank", "alpha", "learning_rate"]
    assert sum(shares.values()) == pytest.approx(1, abs=2e-4)
    assert shares[cause] > 0.75
    assert found["method"] == "PED-ANOVA"
    assert found["runs"] == len(screen(loss))


def test_the_scaling_rule_counts_where_it_was_tried() -> None:
    rows = [
        ScreenRow(f"r={rank}", rank, 1e-3, 16.0, "completed", float(scaling == "standard") + rank / 99, scaling=scaling)
        for rank in RANKS
        for scaling in ("standard", "rslora")
    ]
    found = importance(rows)
    assert found is not None
    assert set(found["shares"]) == {"rank", "scaling"}
    assert found["shares"]["scaling"] > 0.5


def test_runs_that_did_not_complete_are_left_out_and_the_same_rows_give_the_same() -> None:
    rows = grid(by_rate)
    lost = [row(4, 8.0, 1.0, None), ScreenRow("r=4", 4, 1.0, 8.0, "pruned")]
    assert importance(rows + lost) == importance(rows) == importance(grid(by_rate))


@pytest.mark.parametrize(
    "rows",
    [
        [],
        grid(by_rate)[:7],
        [row(4, 8.0, 1e-3, None)] * 20,
        [row(rank, 8.0, 1e-3, 1 / rank) for rank in range(1, 20)],
        grid(lambda *_: 0.5),
    ],
    ids=["none", "too few", "none completed", "one parameter", "all alike"],
)
def test_nothing_is_said_where_it_would_mean_nothing(rows: list[ScreenRow]) -> None:
    assert importance(rows) is None
