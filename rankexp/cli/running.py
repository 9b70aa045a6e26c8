"""Commands that train."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.output import OK, SOME_FAILED, print_verdict, shown
from rankexp.cli.reading import compared, study_folder

if TYPE_CHECKING:
    from rankexp.config import StudyConfig
    from rankexp.study.session import Outcome


def sweep(_: argparse.Namespace, rest: list[str]) -> int:
    """Run a study, or the studies of a multirun."""
    from rankexp.cli.compose import run_with_hydra, sweep_names
    from rankexp.options import ConfigError, near_miss

    if {"--help", "-h"} & set(rest):
        print(_sweep_help(sweep_names()))
        return OK
    named = rest and not rest[0].startswith("-") and "=" not in rest[0]
    name, overrides = (rest[0], rest[1:]) if named else ("rank_grid", rest)
    if name not in sweep_names() and not any(word.startswith(("--config-dir", "-cd")) for word in overrides):
        raise ConfigError(f"there is no sweep {name!r}{near_miss(name, sweep_names())}")
    if {"--multirun", "-m"} & set(overrides) and not {"--cfg", "-c"} & set(overrides):
        raise ConfigError("a sweep is one study and takes no --multirun; `rankexp train --multirun` does.")
    outcomes: list[Outcome] = []
    run_with_hydra(name, overrides, lambda config: outcomes.append(_run_sweep(config)))
    if len(outcomes) > 1:
        studies = [outcome.study for outcome in outcomes]
        print(f"compared  {shown(compared(studies, studies[0].store.workspace))}")
    return max(map(_code, outcomes), default=OK)


def train(_: argparse.Namespace, rest: list[str]) -> int:
    """Train single trials."""
    from rankexp.cli.compose import run_with_hydra

    codes: list[int] = []
    run_with_hydra("config", ["study=train", *rest], lambda config: codes.append(_run_trial(config)))
    return max(codes, default=OK)


def resume(options: argparse.Namespace, rest: list[str]) -> int:
    """Go on with a study as its record describes it."""
    from rankexp.progress import Display
    from rankexp.study.session import resume_study

    folder = study_folder(options.study, rest, "resume takes no options: a study goes on as it was begun.")
    with Display() as display:
        outcome = resume_study(folder, display)
    _print_outcome(outcome, folder.parent.parent)
    return _code(outcome)


def _code(outcome: Outcome) -> int:
    return SOME_FAILED if (outcome.study.trials["status"] == "failed").any() else OK


def _sweep_help(names: Sequence[str]) -> str:
    return (
        "usage: rankexp sweep [NAME] [option=value …] [--cfg job]\n\n"
        "Runs a study to its verdict and report. The same command goes on where it stopped.\n\n"
        f"NAME is one of {', '.join(names)} (default rank_grid), or a file in a folder given with --config-dir.\n"
        "`--cfg job` prints all options; Hydra's own flags work."
    )


def _run_sweep(config: StudyConfig) -> Outcome:
    from rankexp.progress import Display
    from rankexp.study.session import run_study

    with Display() as display:
        outcome = run_study(config, display)
    _print_outcome(outcome, config.workspace)
    return outcome


def _print_outcome(outcome: Outcome, workspace: Path) -> None:
    from rankexp.report.document import brief

    workspace = Path(shown(workspace))
    here = "" if workspace == Path("runs") else f" workspace={workspace}"
    print_verdict(brief(outcome.study))
    print(f"\ntrained   {len(outcome.trained)} trials, {len(outcome.study.by_key)} in the study")
    print(f"report    {shown(outcome.report)}")
    print(f"MLflow    rankexp ui{here}")


def _run_trial(config: StudyConfig) -> int:
    from rankexp.progress import Display
    from rankexp.study.attempt import outcome_of
    from rankexp.study.session import run_trial

    with Display() as display:
        trial = run_trial(config, display)
    print(f"{trial.key}  {outcome_of(trial)}\nadapter   {shown(trial.adapter)}")
    return SOME_FAILED if trial.result.status == "failed" else OK
