"""The search: options that belong to a strategy, and studies of the time when all strategies shared one list."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from thorough import later, later_but

from rankexp.cli.compose import run_with_hydra
from rankexp.config import SearchConfig, StudyConfig
from rankexp.option_errors import ConfigError
from rankexp.options import parse

pytestmark = pytest.mark.slow

BEFORE = {
    "strategy": "grid", "ranks": [4, 8, 16, 32], "learning_rates": [1e-3, 3e-3, 1e-2], "seed": 1000, "steps": None,
    "widen": 1, "first_rung": 0, "reduction_factor": 3, "alphas": [], "scalings": [], "trials": 24, "sampler": "tpe",
    "max_parameters": None, "max_adapter_mib": None, "shortlist": 2, "nested_losses": "sampled",
}  # fmt: skip
"""A search as `study.json` held it before strategies had options of their own."""


def composed(name: str, *words: str) -> StudyConfig:
    found: list[StudyConfig] = []
    run_with_hydra(name, words, found.append)
    return found[0]


def of(search: dict[str, Any]) -> StudyConfig:
    model = {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}}
    return parse(StudyConfig, {"study": "s", "model": model, "task": {"name": "csv", "path": "x"}, "search": search})


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("config search=grid search.surface=false", "study-363a4e9e"),
        later("config search=halving", "study-381888d7"),
        ("config search=tpe search.surface=false", "study-65963bfd"),
        later("config search=gp search.surface=false", "study-dd148391"),
        later("config search=pareto search.surface=false", "study-cea0ed35"),
        ("config search=nested", "study-84494d53"),
        later("config search=squeeze", "study-82dd4f6c"),
        ("rank_grid search.surface=false", "rank_grid-6a25cfa3"),
        later("alpha_scaling search.surface=false", "alpha_scaling-2bcea742"),
        ("rank_alpha search.surface=false", "rank_alpha-7ebe58c1"),
        later("pareto search.surface=false", "pareto-f1c02115"),
        later("auto search.surface=false", "auto-4dc80305"),
        ("strategies search.surface=false", "strategies-ec205236"),
        ("rank_grid search=halving search.first_rung=15", "rank_grid-aae967ab"),
        ("rank_grid search.widen=2 search.alphas=[8,16] search.surface=false", "rank_grid-26f634a7"),
        later("rank_grid search.widen=2 search.alphas=[16.0,8] search.surface=false", "rank_grid-26f634a7"),
        (
            "pareto search.sampler=nsga2 search.max_adapter_mib=1.5 search.max_parameters=99999 search.surface=false",
            "pareto-7b18c6da",
        ),
        ("rank_alpha search.alphas=[8,16] search.trials=8 search.surface=false", "rank_alpha-dbe58930"),
        ("nested search.losses=summed", "nested-fd5c61f2"),
    ],
)
def test_a_command_finds_the_study_that_it_began_before_strategies_had_options_of_their_own(
    command: str, folder: str
) -> None:
    assert composed(*command.split()).study_folder.name == folder


@pytest.mark.parametrize(
    "name", later_but({"grid", "tpe", "nested"}, ["grid", "halving", "tpe", "gp", "pareto", "nested", "squeeze"])
)
def test_a_search_that_locates_rates_is_another_question_and_where_it_cannot_it_is_the_same(name: str) -> None:
    with_surface, without = (
        composed("config", f"search={name}", f"search.surface={surface}") for surface in ("true", "false")
    )
    locates = name in ("grid", "tpe", "gp", "pareto")
    assert (with_surface.search.step is not None) == locates
    assert without.search.step is None
    assert (with_surface.study_folder != without.study_folder) == locates


@pytest.mark.parametrize(
    ("rates", "step"),
    [
        ([1e-3], None),
        ([1e-3, 1e-2], None),
        ([1e-3, 3e-3, 1e-2], 0.25),
        ([1e-5, 1e-4, 1e-3, 1e-2], 0.5),
    ],
)
def test_a_grid_is_refined_by_half_its_step(rates: list[float], step: float | None) -> None:
    assert of({"surface": True, "learning_rates": rates}).search.step == (step if step is None else pytest.approx(step))


@pytest.mark.parametrize(
    ("changes", "strategy", "options"),
    [
        ({}, "grid", {"alphas": [], "scalings": []}),
        (
            {"first_rung": 30, "reduction_factor": 2},
            "halving",
            {"alphas": [], "scalings": [], "first_rung": 30, "reduction_factor": 2},
        ),
        (
            {"first_rung": 0, "reduction_factor": 2},
            "halving",
            {"alphas": [], "scalings": [], "first_rung": 0, "reduction_factor": 2},
        ),
        ({"strategy": "tpe", "alphas": [8.0]}, "tpe", {"alphas": [8.0], "trials": 24}),
        ({"strategy": "gp", "alphas": [8.0], "trials": 9}, "gp", {"alphas": [8.0], "trials": 9}),
        (
            {"strategy": "pareto", "alphas": [8.0], "sampler": "nsga2", "max_adapter_mib": 1.5},
            "pareto",
            {"alphas": [8.0], "trials": 24, "sampler": "nsga2", "max_parameters": None, "max_adapter_mib": 1.5},
        ),
        (
            {"strategy": "nested", "nested_losses": "summed"},
            "nested",
            {"alphas": [], "shortlist": 2, "losses": "summed"},
        ),
        ({"strategy": "squeeze", "shortlist": 3}, "squeeze", {"alphas": [], "shortlist": 3}),
    ],
)
def test_the_record_of_an_older_study_is_read_and_leads_to_the_same_folder(
    changes: dict[str, Any], strategy: str, options: dict[str, Any]
) -> None:
    read = of({**BEFORE, **changes})
    assert (read.search.strategy, read.search.options) == (strategy, options)
    written = json.loads(json.dumps(read.to_dict()))
    assert written["search"].keys() == {
        "strategy",
        "ranks",
        "learning_rates",
        "seed",
        "steps",
        "widen",
        "surface",
        *options,
    }
    assert of(written["search"]) == read
    assert of(written["search"]).study_folder == read.study_folder


def test_options_are_written_beside_the_question_and_changed_like_it() -> None:
    search = SearchConfig(strategy="squeeze", options={"shortlist": 3})
    assert search == of({"strategy": "squeeze", "shortlist": 3}).search
    assert replace(search, ranks=[2, 4]).options == search.options
    assert search.named == {"strategy": "squeeze", "alphas": [], "shortlist": 3}


def test_only_what_is_told_how_many_trials_samples_its_rates() -> None:
    names = ("grid", "halving", "nested", "squeeze", "rule_of_thumb", "capacity_rule", "tpe", "gp", "pareto", "optuna")
    assert [name for name in names if of({"strategy": name}).search.samples] == ["tpe", "gp", "pareto", "optuna"]


def test_a_study_of_a_strategy_that_is_not_installed_is_read_as_it_is() -> None:
    read = of({"strategy": "elsewhere", "depth": 3, "trials": 5})
    assert read.search.options == {"depth": 3, "trials": 5}
    assert read.to_dict()["search"]["depth"] == 3
    assert read.search.made() is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search.first_rung=15"], "option 'search.first_rung' is for strategy halving."),
        (
            ["search=squeeze", "search.trials=5"],
            "option 'search.trials' is for strategy gp or optuna or pareto or tpe.",
        ),
        (
            ["search=nested", "search.nested_losses=summed"],
            "option 'search.nested_losses' is called 'search.losses' now.",
        ),
        (["search.widn=2"], "unknown option 'search.widn'; did you mean 'search.widen'?"),
    ],
)
def test_a_command_that_gives_a_strategy_the_option_of_another_is_told_whose_it_is(words: list[str], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        composed("rank_grid", *words)
    assert str(refused.value) == says


@pytest.mark.parametrize("said", [{"shortlist": 3}, {"trials": 40, "sampler": "nsga2"}])
def test_what_a_search_of_before_said_without_effect_is_no_reason_not_to_read_it(said: dict[str, Any]) -> None:
    assert of({**BEFORE, **said}).search == of(BEFORE).search
    with pytest.raises(ConfigError, match="is for strategy"):
        of({"strategy": "grid", **said})
