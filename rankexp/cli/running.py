"""Commands that train."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.output import OK, SOME_FAILED, print_verdict, say, shown
from rankexp.cli.reading import compared, study_folder

if TYPE_CHECKING:
    from rankexp.config import StudyConfig
    from rankexp.study.session import Outcome


def sweep(_: argparse.Namespace, rest: list[str]) -> int:
    """Run a study, or the studies of a multirun."""
    from rankexp.cli.compose import run_with_hydra, sweep_names
    from rankexp.options import ConfigError, near_miss

    if {"--help", "-h"} & set(rest):
        say(_sweep_help(sweep_names()))
        return OK
    named = rest and not rest[0].startswith("-") and "=" not in rest[0]
    name, overrides = (rest[0], rest[1:]) if named else ("rank_grid", rest)
    if name not in sweep_names() and not any(word.startswith(("--config", "-cd")) for word in overrides):
        raise ConfigError(f"there is no sweep {name!r}{near_miss(name, sweep_names())}")
    if {"--multirun", "-m"} & set(overrides) and not {"--cfg", "-c"} & set(overrides):
        raise ConfigError("a sweep is one study and takes no --multirun; `rankexp train --multirun` does.")
    outcomes: list[Outcome] = []
    placed: list[StudyConfig] = []

    def run(config: StudyConfig) -> None:
        if config.launcher.name in {"slurm", "ray"} and config.workers:
            placed.append(config)
        else:
            outcomes.extend(_run_sweep(config))

    run_with_hydra(name, overrides, run)
    if placed:
        outcomes += _run_on_cluster(name, overrides, placed)
    if len(outcomes) > 1:
        studies = [outcome.study for outcome in outcomes]
        say(f"compared  {shown(compared(studies, studies[0].store.workspace))}")
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

    folder = study_folder(options.study, rest, "resume takes no options: a study goes on as it was begun.", begun=True)
    with Display() as display:
        outcome = resume_study(folder, display)
    _print_outcome(outcome, folder.parent.parent)
    return _code(outcome)


def worker(options: argparse.Namespace, rest: list[str]) -> int:
    """Work for a study beside other processes."""
    from rankexp.config import OF_WORKER
    from rankexp.options import ConfigError, near_miss
    from rankexp.progress import Display
    from rankexp.study.session import help_study

    own = [word for word in rest if not word.startswith(("workspace=", "storage="))]
    changes = dict(word.split("=", 1) for word in own if "=" in word)
    for word in own:
        if (name := word.split("=", 1)[0]) not in OF_WORKER or "=" not in word:
            raise ConfigError(f"worker takes no {name!r}{near_miss(name, OF_WORKER)}")
    values = {name: _value(text) for name, text in changes.items()}
    folder = study_folder(options.study, [word for word in rest if word not in own], begun=True)
    with Display() as display:
        help_study(folder, display, values)
    return OK


def _value(text: str) -> object:
    """Read a number if it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _code(outcome: Outcome) -> int:
    return SOME_FAILED if (outcome.study.trials["status"] == "failed").any() else OK


def _sweep_help(names: Sequence[str]) -> str:
    return (
        "usage: rankexp sweep [NAME] [option=value …] [--cfg job]\n\n"
        "Runs a study to its verdict and report. The same command goes on where it stopped.\n\n"
        f"NAME is one of {', '.join(names)} (default rank_grid), or a file in a folder given with --config-dir.\n"
        "`--cfg job` prints all options; Hydra's own flags work."
    )


def _run_sweep(config: StudyConfig) -> list[Outcome]:
    """Run a study here, with workers beside this process, or not at all: what came of it, if it ran."""
    from rankexp.cli.launching import run_local
    from rankexp.options import ConfigError
    from rankexp.progress import Display
    from rankexp.study.session import begin_study, run_study

    if config.workers == 0:
        say(f"study     {shown(begin_study(config))}")
        say(f"join it   rankexp worker {config.study_folder.name}{_where(config.workspace)}")
        return []
    if config.launcher.name == "none" and config.workers > 1:
        raise ConfigError(f"workers={config.workers} needs a launcher: launcher=local, slurm or ray.")
    with Display() as display:
        if config.launcher.name == "local":
            outcome = run_local(config, begin_study(config), display)
        else:
            outcome = run_study(config, display)
    _print_outcome(outcome, config.workspace)
    return [outcome]


def _run_on_cluster(name: str, overrides: list[str], configs: Sequence[StudyConfig]) -> list[Outcome]:
    """Let a launcher of Hydra's place the workers of a study, and wait for them."""
    from rankexp.cli.cluster import print_submission, run_on_cluster
    from rankexp.options import ConfigError
    from rankexp.progress import Display
    from rankexp.study.session import begin_study

    if len(configs) > 1:
        raise ConfigError(f"{name} is {len(configs)} studies; launcher=local runs them one after the other.")
    (config,) = configs
    if config.launcher.dry_run:
        print_submission(name, overrides, config)
        return []
    with Display() as display:
        outcome = run_on_cluster(name, overrides, config, begin_study(config), display)
    _print_outcome(outcome, config.workspace)
    return [outcome]


def _print_outcome(outcome: Outcome, workspace: Path) -> None:
    from rankexp.report.document import brief

    print_verdict(brief(outcome.study))
    say(f"\ntrained   {outcome.trained} trials, {len(outcome.study.by_key)} in the study")
    say(f"report    {shown(outcome.report)}")
    tracking = outcome.study.config.tracking
    if tracking.name == "mlflow":
        mirror = _mirror(outcome.study.store.workspace, tracking.uri)
        say(f"MLflow    {mirror or f'rankexp ui{_where(workspace)}'}")


def _mirror(workspace: Path, uri: str | None) -> str | None:
    """Return where runs are mirrored; None for the workspace's own store."""
    from rankexp.tracking import TrackingError, find_store, shown

    try:
        found = find_store(workspace, uri)
    except TrackingError:
        return f"rankexp sync STUDY tracking.uri={shown(uri or '')}"
    return found and shown(found)


def _where(workspace: Path) -> str:
    """Return what to add to a command for a workspace that is not the usual one, as a shell wants it."""
    place = shown(workspace)
    return "" if place == "runs" else f" {shlex.quote(f'workspace={place}')}"


def _run_trial(config: StudyConfig) -> int:
    from rankexp.progress import Display
    from rankexp.study.execution.audience import outcome_of
    from rankexp.study.session import run_trial

    with Display() as display:
        trial = run_trial(config, display)
    say(f"{trial.key}  {outcome_of(trial)}")
    if trial.adapter.is_dir():  # one that failed or diverged has none
        say(f"adapter   {shown(trial.adapter)}")
    return SOME_FAILED if trial.result.status == "failed" else OK
