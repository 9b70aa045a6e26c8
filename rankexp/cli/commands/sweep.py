"""``rankexp sweep``: a study from its first trial to its verdict and report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rankexp.cli.arguments import table
from rankexp.cli.command import Command, Section, hydra_flags
from rankexp.cli.outcome import code_of, compared, print_outcome, where
from rankexp.cli.output import OK, say, shown
from rankexp.cli.resources import sweep_names, sweep_questions

if TYPE_CHECKING:
    from rankexp.config import StudyConfig
    from rankexp.study.session import Outcome


DRY_RUN = "--dry-run"


def run(_: argparse.Namespace, rest: list[str]) -> int:
    """Run a study, or the studies of a multirun."""
    from rankexp.cli.compose import run_with_hydra
    from rankexp.option_errors import ConfigError, near_miss

    dry = DRY_RUN in rest
    rest = [word for word in rest if word != DRY_RUN]
    named = rest and not rest[0].startswith("-") and "=" not in rest[0]
    name, overrides = (rest[0], rest[1:]) if named else ("rank_grid", rest)
    if name not in sweep_names() and not any(word.startswith(("--config", "-cd")) for word in overrides):
        raise ConfigError(f"there is no sweep {name!r}{near_miss(name, sweep_names())}")
    if {"--multirun", "-m"} & set(overrides) and not {"--cfg", "-c"} & set(overrides):
        raise ConfigError("a sweep is one study and takes no --multirun; `rankexp train --multirun` does.")
    outcomes: list[Outcome] = []
    placed: list[StudyConfig] = []

    def run(config: StudyConfig) -> None:
        if dry:
            _say_forecast(config)
        elif config.launcher.name in {"slurm", "ray"} and config.workers:
            placed.append(config)
        else:
            outcomes.extend(_run_sweep(config))

    run_with_hydra(name, overrides, run)
    if placed:
        outcomes += _run_on_cluster(name, overrides, placed)
    if len(outcomes) > 1:
        studies = [outcome.study for outcome in outcomes]
        say(f"compared  {shown(compared(studies, studies[0].store.workspace))}")
    return max(map(code_of, outcomes), default=OK)


def _say_forecast(config: StudyConfig) -> None:
    from rankexp.progress import Display
    from rankexp.study.session import forecast_study

    with Display() as display:
        forecast = forecast_study(config, display)
    for line in forecast.lines():
        say(line)


def _run_sweep(config: StudyConfig) -> list[Outcome]:
    """Run a study here, with workers beside this process, or not at all: what came of it, if it ran."""
    from rankexp.cli.local_workers import run_local
    from rankexp.option_errors import ConfigError
    from rankexp.progress import Display
    from rankexp.study.session import begin_study, run_study

    if config.workers == 0:
        say(f"study     {shown(begin_study(config))}")
        say(f"join it   rankexp worker {config.study_folder.name}{where(config.workspace)}")
        return []
    if config.launcher.name == "none" and config.workers > 1:
        raise ConfigError(f"workers={config.workers} needs a launcher: launcher=local, slurm or ray.")
    with Display() as display:
        if config.launcher.name == "local":
            outcome = run_local(config, begin_study(config), display)
        else:
            outcome = run_study(config, display)
    print_outcome(outcome, config.workspace)
    return [outcome]


def _run_on_cluster(name: str, overrides: list[str], configs: Sequence[StudyConfig]) -> list[Outcome]:
    """Let a launcher of Hydra's place the workers of a study, and wait for them."""
    from rankexp.cli.cluster_workers import print_submission, run_on_cluster
    from rankexp.option_errors import ConfigError
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
    print_outcome(outcome, config.workspace)
    return [outcome]


def _flags(parser: argparse.ArgumentParser) -> None:
    hydra_flags(parser)
    meaning = "load model and data, say what would be trained and about how long that takes, and leave nothing behind"
    parser.add_argument(DRY_RUN, action="store_true", help=meaning)


def _notes() -> str:
    rows = sweep_questions().items()
    return (
        "The same command goes on where it stopped. NAME is one of the sweeps below (default rank_grid), or a file in "
        "a folder given with --config-dir.\n\n"
        "Write option=value to change an option: search.ranks=[8,16] train.steps=200. A part as a whole is chosen by "
        "the name of its file: task=csv, search=tpe, launcher=local. +contest.contenders.mine='{strategy: grid}' adds "
        "what is not there. The defaults below hold where the sweep sets nothing else; `--cfg job` shows what comes of "
        "it and runs nothing.\n\n"
        f"sweeps:\n{table(rows, label=18)}"
    )


COMMAND = Command(
    Section.TRAIN,
    "run a study to its verdict and report, or go on with it",
    run,
    overrides=(
        *("study", "workspace", "device", "jobs", "threads", "pack", "attention", "gradient_checkpointing"),
        *("checkpoint_every", "lease_seconds", "storage"),
        *(
            "workers",
            "launcher",
            "model",
            "task",
            "lora",
            "train",
            "search",
            "decide",
            "confirm",
            "references",
            "contest",
        ),
        "tracking",
    ),
    flags=_flags,
    first=sweep_questions,
    notes=_notes,
    place=1,
)
