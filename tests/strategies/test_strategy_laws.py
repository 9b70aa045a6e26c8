"""Every strategy that is installed obeys the laws of strategies, in each of its ways."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from rankexp.analysis.screen import ScreenRow
from rankexp.option_errors import ConfigError
from rankexp.options import plugin
from rankexp.strategies.adalora import AdaLoRA
from rankexp.strategies.allocated import Allocated
from rankexp.strategies.base import Strategy, make_strategy
from rankexp.strategies.capacity_rule import CapacityRule
from rankexp.strategies.curve import Nested, Squeeze
from rankexp.strategies.grid_search import GridSearch, HalvingSearch
from rankexp.strategies.halving import Halving
from rankexp.strategies.rule_of_thumb import RuleOfThumb
from rankexp.strategies.variant import Variant
from rankexp.study.search.optuna_strategy import Gp, OptunaSearch, Pareto, Tpe
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
        assert (found.best.rank, found.best.alpha) == (8, 16.0)


class TestRuleOfThumbAboveTheBudget(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return RuleOfThumb(rank=16)


class TestCapacityRule(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return CapacityRule()

    @pytest.mark.parametrize(
        ("bits", "rank"), [(0.0, 2), (2 * 2 * 896, 2), (2 * 2 * 896 + 1, 4), (2 * 7 * 896, 8), (1e9, 16)]
    )
    def test_it_is_the_smallest_rank_with_half_as_many_parameters_as_there_are_bits(
        self, bits: float, rank: int
    ) -> None:
        assert self.question().parameters(1) == 896
        assert CapacityRule().rank(replace(self.question(None), to_learn=bits)) == rank
        assert CapacityRule().rank(replace(self.question(), to_learn=bits)) == min(rank, 8)
        assert CapacityRule(bits_per_parameter=1.0).rank(replace(self.question(None), to_learn=bits / 2)) == rank


class TestGridSearch(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return GridSearch()


class TestGridOfScales(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return GridSearch(ranks=[8, 16], alphas=[8.0, 16.0], scalings=["standard", "rslora"])


class TestHalvingSearch(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return HalvingSearch()

    def test_it_is_the_grid_with_rungs(self) -> None:
        assert self.walk(self.losses()["a bowl"]) == TestGridSearch().walk(self.losses()["a bowl"])
        assert HalvingSearch(first_rung=15, reduction_factor=2).halving(60) == Halving(15, 2, 60)
        assert HalvingSearch(first_rung=0).halving(60) is None
        with pytest.raises(ConfigError, match="first_rung 30 must come before the last step of a screening run"):
            HalvingSearch().halving(30)


class TestAllocated(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Allocated(allocator={"name": "by_depth"})


class TestAdaLoRA(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return AdaLoRA()

    def test_it_begins_above_the_budget_and_ends_at_it(self) -> None:
        question = self.question()
        _, found = self.walk(self.losses()["a bowl"])
        begun, pruning = found.best.variant.rank_map, found.best.variant.pruning
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


class TestTpe(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Tpe(alphas=[8.0, 16.0, 32.0])

    def test_in_a_contest_it_is_optuna_by_another_name(self) -> None:
        assert self.walk(self.losses()["a bowl"], 11) == TestOptuna().walk(self.losses()["a bowl"], 11)


@pytest.mark.slow
class TestGp(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Gp(trials=12)


class TestPareto(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return Pareto()

    def test_no_rank_beyond_its_limits_is_tried(self) -> None:
        question = self.question(None)
        limited = Pareto(max_parameters=question.parameters(4))
        assert limited.affordable(question) == (2, 4)
        assert limited.searched(question).choices == (2, 4)
        assert Pareto(max_adapter_mib=4 * question.parameters(8) / 2**20).affordable(question) == (2, 4, 8)
        with pytest.raises(ConfigError, match=r"rank 2, the lowest of search\.ranks, has 1792 parameters; .* allow 9"):
            Pareto(max_parameters=9).affordable(question)

    @pytest.mark.parametrize(
        ("losses", "front", "decided"),
        [([0.9, 0.7, 0.8, 0.6], [2, 4, 16], [2, 4, 16]), ([0.1, 0.2, 0.3, 0.4], [2], [2, 16])],
    )
    def test_ranks_that_no_cheaper_one_matches_are_worth_deciding_on(
        self, losses: list[float], front: list[int], decided: list[int]
    ) -> None:
        question = self.question(None)
        rows = [
            ScreenRow(f"r={rank}", rank, 1e-3, 16.0, "completed", loss)
            for rank, loss in zip(question.ranks, losses, strict=True)
        ]
        found = Pareto().found(rows, question)
        assert [setting.rank for setting in found.settings] == decided
        parameters = {str(rank): 896 * rank for rank in question.ranks}
        assert found.notes == {"front": {"ranks": front, "decided": decided, "parameters": parameters}}


class TestOptuna(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(alphas=[8.0, 16.0, 32.0])


class TestOptunaByLayer(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(space="per_layer", at_once=2)


@pytest.mark.slow
@pytest.mark.thorough
class TestGaussianProcessByLayer(StrategyConformance):
    def make_strategy(self) -> Strategy:
        return OptunaSearch(space="per_layer", sampler="gp")


@pytest.mark.parametrize("name", NAMED)
def test_a_strategy_says_whether_it_can_be_a_screen_and_what_it_leaves_out(name: str) -> None:
    options = {"strategy": name, **({"allocator": {"name": "uniform"}} if name == "allocated" else {})}
    made = make_strategy(options, "it.")
    assert made.finds_ranks is (name not in {"allocated", "adalora", "variant"})
    if made.finds_ranks:
        leaves_out = {"rule_of_thumb", "capacity_rule", "pareto", "nested", "squeeze"}
        assert made.leaves_out is (name in leaves_out)
        assert made.beside_references is (name in {"grid", "halving"})


def test_one_rank_for_each_layer_is_no_screen() -> None:
    assert not OptunaSearch(space="per_layer").finds_ranks


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
