"""Every strategy that is installed obeys the laws of strategies, in each of its ways."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rankexp.options import ConfigError, plugin
from rankexp.strategies.adalora import AdaLoRA
from rankexp.strategies.allocated import Allocated
from rankexp.strategies.base import Strategy
from rankexp.strategies.by_curve import Nested, Squeeze
from rankexp.strategies.grid_search import GridSearch
from rankexp.strategies.rule_of_thumb import RuleOfThumb
from rankexp.strategies.variant import Variant
from rankexp.study.search.optuna_strategy import OptunaSearch
from rankexp.testing import StrategyConformance

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
NAMED = PROJECT["project"]["entry-points"]["rankexp.strategies"]


class TestRuleOfThumb(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return RuleOfThumb()

    @pytest.mark.parametrize("trials", [1, 3, 6, 11])
    def test_alpha_is_twice_the_rank_and_runs_left_over_are_left(self, trials: int) -> None:
        asked, found = self.walk(self.losses()["high rates diverge"], trials=trials)
        assert {(setting.rank, setting.alpha) for some in asked for setting in some} == {(8, 16.0)}
        assert (found.rank, found.alpha) == (8, 16.0)


class TestRuleOfThumbAboveTheBudget(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return RuleOfThumb(rank=16)


class TestGridSearch(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return GridSearch()


class TestGridOfScales(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return GridSearch(ranks=[8, 16], alphas=[8.0, 16.0], scalings=["standard", "rslora"])


class TestAllocated(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Allocated(allocator={"name": "by_depth"})


class TestAdaLoRA(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return AdaLoRA()

    def test_it_begins_above_the_budget_and_ends_at_it(self) -> None:
        question = self.question()
        _, found = self.walk(self.losses()["a bowl"])
        begun, pruning = found.variant.rank_map, found.variant.pruning
        assert begun is not None
        assert pruning is not None
        assert sum(begun.values()) > pruning.budget == 8 * len(question.shapes)


class TestLateAdaLoRA(StrategyConformance):
    """Layers so small, and pruning so late, that there is little to do."""

    def make_strategy(self) -> Strategy:
        return AdaLoRA(start=9.0, first=0.9, last=0.95)


class TestNested(StrategyConformance):
    reads_a_curve = True

    def make_strategy(self) -> Strategy:
        return Nested()


class TestNestedOfSummedLosses(StrategyConformance):
    reads_a_curve = True

    def make_strategy(self) -> Strategy:
        made: Strategy = plugin("strategy", {"strategy": "nested", "losses": "summed"}, "it.", key="strategy")
        return made

    def test_its_runs_sum_the_losses(self) -> None:
        asked, _ = self.walk(self.losses()["a bowl"])
        assert {setting.variant.nested_losses for some in asked for setting in some} == {"summed"}


class TestSqueeze(StrategyConformance):
    reads_a_curve = True

    def make_strategy(self) -> Strategy:
        return Squeeze()


class TestVariant(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Variant(method="dora", scaling="rslora", loraplus_lr_ratio=4.0)


class TestOptuna(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(alphas=[8.0, 16.0, 32.0])


class TestOptunaByLayer(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(space="per_layer", at_once=2)


@pytest.mark.slow
class TestGaussianProcessByLayer(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(space="per_layer", sampler="gp")


def suites() -> list[type[StrategyConformance]]:
    return [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, StrategyConformance)][1:]


def test_every_strategy_of_the_project_is_here() -> None:
    made = [type(suite().make_strategy()) for suite in suites()]
    assert {f"{kind.__module__}:{kind.__qualname__}" for kind in made} == set(NAMED.values())


@pytest.mark.parametrize("name", NAMED)
def test_every_strategy_is_found_by_its_name(name: str) -> None:
    options = {"strategy": name, **({"allocator": {"name": "uniform"}} if name == "allocated" else {})}
    made = plugin("strategy", options, "contest.contenders.it.", key="strategy")
    assert f"{type(made).__module__}:{type(made).__qualname__}" == NAMED[name]
    with pytest.raises(ConfigError, match=r"contest\.contenders\.it\.nonsense"):
        plugin("strategy", {**options, "nonsense": 1}, "contest.contenders.it.", key="strategy")
