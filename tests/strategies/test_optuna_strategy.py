"""Optuna as a strategy: what comes first, what it costs, and what a resumed contest sees."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import later

from rankexp.ranks import RankMap
from rankexp.strategies.base import Question, Strategy
from rankexp.strategies.rank_space import MOST_GROUPS, RankSpace, fitted, groups_of
from rankexp.strategies.setting import PLAIN, Setting
from rankexp.study.search.optuna_strategy import OptunaSearch
from rankexp.testing.strategies import StrategyConformance, answered, rank_map


def made_up(setting: Setting, rank: float) -> float | None:
    return None if setting.learning_rate > 8e-3 else abs(math.log10(setting.learning_rate) + 2.4) + 1 / rank


class Walks(StrategyConformance):
    """The question of the suite, for one strategy."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def make_strategy(self) -> Strategy:
        return OptunaSearch(**self.options)


@pytest.mark.parametrize("space", ["uniform", "per_layer"])
def test_the_uniform_maps_within_the_budget_come_first_the_largest_before_the_others(space: str) -> None:
    walks = Walks(space=space)
    asked, _ = walks.walk(made_up, trials=10)
    first = asked[0]
    assert [setting.rank for setting in first] == [8, 4, 2]
    assert all(setting.variant == PLAIN for setting in first)
    assert {setting.learning_rate for setting in first} == {3.16e-3}
    assert [len(some) for some in asked[1:]] == [1] * 7
    cut, _ = walks.walk(made_up, trials=2)
    assert [[setting.rank for setting in some] for some in cut] == [[8, 4]]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.parametrize("trials", [6, 9])
def test_what_is_asked_hangs_on_what_was_told_within_the_runs_of_a_contest(sampler: str, trials: int) -> None:
    walks = Walks(sampler=sampler, alphas=[8.0, 16.0, 32.0])
    low, _ = walks.walk(lambda setting, rank: setting.learning_rate + 0 * rank, trials=trials)
    high, _ = walks.walk(lambda setting, rank: -setting.learning_rate + 0 * rank, trials=trials)
    assert low[0] == high[0]
    assert low != high


def test_maps_by_layer_give_blocks_and_kinds_ranks_of_their_own() -> None:
    asked, _ = Walks(space="per_layer").walk(made_up, trials=10)
    maps = [rank_map(some[0], Walks().question()) for some in asked[1:]]
    assert all(found.uniform_rank is None for found in maps)
    assert len(set(maps)) == len(maps)


def test_runs_that_are_asked_for_together_differ() -> None:
    asked, _ = Walks(space="uniform", at_once=4).walk(made_up, trials=11)
    assert [len(some) for some in asked] == [3, 4, 4]
    assert len({setting for some in asked for setting in some}) == 11


def test_alphas_are_searched_where_there_are_several() -> None:
    asked, _ = Walks(alphas=[32.0, 8.0, 16.0]).walk(made_up, trials=11)
    assert {setting.alpha for setting in asked[0]} == {16.0}
    assert {setting.alpha for some in asked for setting in some} == {8.0, 16.0, 32.0}


@pytest.mark.parametrize("options", [
    {"space": "uniform"}, {"space": "per_layer"}, {"space": "per_layer", "at_once": 3},
    later({"space": "per_layer", "sampler": "gp"}),
    later({"sampler": "gp", "at_once": 2}),
])  # fmt: skip
def test_a_contest_that_is_resumed_at_any_run_asks_the_very_same(options: dict[str, Any]) -> None:
    walks = Walks(**options)
    question = walks.question(trials=12)
    whole, found = walks.walk(made_up, trials=12)
    for stop in (1, len(whole) // 2, len(whole) - 1):  # as if the command had ended while a round was trained
        walked(walks, question, whole[:stop])
    assert walks.walk(made_up, trials=12) == (whole, found)


def walked(walks: Walks, question: Question, rounds: list[list[Setting]]) -> None:
    search = walks.make_strategy().search(question)
    next_round = next(search)
    for some in rounds:
        assert next_round == some
        next_round = search.send([row for s in some for row in answered(s, question, made_up)])


def test_the_question_s_seed_decides_what_is_sampled() -> None:
    strategy, question = OptunaSearch(), Walks().question(trials=8)
    tried = []
    for seed in (1000, 1001):
        search = strategy.search(replace(question, seed=seed))
        first = next(search)
        tried.append(search.send([row for s in first for row in answered(s, question, made_up)]))
    assert tried[0] != tried[1]


SHAPES = st.dictionaries(
    st.tuples(st.integers(0, 5), st.sampled_from(["q", "k", "v", "up", "down"])).map(lambda at: f"h.{at[0]}.{at[1]}"),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    min_size=1,
)


@pytest.mark.slow
@given(SHAPES, st.data())
def test_a_fitted_map_is_within_the_budget_and_keeps_proportions(shapes: Any, data: st.DataObject) -> None:
    ranks = {name: data.draw(st.integers(0, min(shape))) for name, shape in shapes.items()}
    least = RankMap.uniform(shapes, 1).cost(shapes)
    budget = data.draw(st.integers(least, 3 * least))
    found = fitted(ranks, shapes, budget) if any(ranks.values()) else RankMap()
    assert found.cost(shapes) <= budget
    if RankMap(ranks).cost(shapes) <= budget:
        assert found == RankMap(ranks)
    elif any(ranks.values()):
        assert found, "rank 1 of the largest layers is always within the budget"
        order = sorted(ranks, key=ranks.__getitem__)
        assert [found.get(name, 0) for name in order] == sorted(found.get(name, 0) for name in order)
        more = {name: math.floor(rank * (found_share(ranks, found) + 1e-9)) for name, rank in ranks.items()}
        assert RankMap(more).cost(shapes) > budget, "no larger share fits"


def found_share(ranks: dict[str, int], found: RankMap) -> float:
    """The next share at which some layer would have one rank more."""
    return min((found.get(name, 0) + 1) / rank for name, rank in ranks.items() if rank)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(SHAPES, st.integers(1, 4), st.integers(1, 14), st.sampled_from(["uniform", "per_layer"]))
def test_no_setting_is_over_the_budget_and_every_one_can_be_trained(
    shapes: Any, rank: int, trials: int, space: str
) -> None:
    rank = min(rank, *(min(shape) for shape in shapes.values()))
    budget = RankMap.uniform(shapes, rank).cost(shapes)
    question = replace(Walks().question(trials), shapes=shapes, budget=budget, budget_rank=rank)
    search = OptunaSearch(space=space, at_once=3).search(question)
    tried, asked = 0, next(search)
    while asked:
        for setting in asked:
            found = rank_map(setting, question)
            assert 0 < found.cost(shapes) <= budget  # cost also refuses a rank that a layer cannot hold
            tried += 1
        try:
            asked = search.send([row for s in asked for row in answered(s, question, made_up)])
        except StopIteration as end:
            assert rank_map(end.value.best, question).cost(shapes) <= budget
            break
    assert tried == trials


def test_a_map_without_layers_becomes_the_lowest_rank_everywhere() -> None:
    shapes = {"h.0.q": (8, 8), "h.1.q": (8, 8)}
    space = RankSpace("it", (("h.0.q",), ("h.1.q",)), (0, 2, 4), (16.0,), (1e-3, 1e-2), shapes, 64)
    values = {"rank_0": 0, "rank_1": 0, "alpha_index": 0, "learning_rate": 1e-3}
    assert space.setting(values) == Setting("r=2", 2, 16.0, 1e-3)
    assert space.setting({**values, "rank_1": 2}).variant.rank_map == RankMap({"h.1.q": 4})
    assert [values["rank_0"] for values in space.uniform()] == [1]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 30))
def test_groups_hold_every_layer_once_and_are_few(blocks: int, kinds: int, most: int) -> None:
    names = [f"layers.{block}.module{kind}" for block in range(blocks) for kind in range(kinds)] + ["head.dense"]
    groups = groups_of(names, most)
    assert sorted(name for group in groups for name in group) == sorted(names)
    assert len(groups) <= most
    if kinds + 1 <= most:
        of_kind = [{name.split(".")[-1] for name in group} for group in groups]
        assert all(len(found) == 1 for found in of_kind)
    if len(names) <= most:
        assert len(groups) == len(names)


def test_neighbouring_blocks_are_grouped_and_the_order_of_names_does_not_matter() -> None:
    names = [f"encoder.layer.{block}.{kind}" for block in range(12) for kind in ("key", "query", "value", "out")]
    groups = groups_of(names)
    assert len(groups) == 24 == MOST_GROUPS
    assert ("encoder.layer.10.key", "encoder.layer.11.key") in groups
    assert groups_of(reversed(names)) == groups
