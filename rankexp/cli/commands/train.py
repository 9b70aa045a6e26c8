"""``rankexp train``: single trials."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rankexp.cli.command import Command, Section, hydra_flags
from rankexp.cli.output import OK, SOME_FAILED, say, shown

if TYPE_CHECKING:
    from rankexp.config import StudyConfig


def run(_: argparse.Namespace, rest: list[str]) -> int:
    """Train single trials."""
    from rankexp.cli.compose import run_with_hydra

    codes: list[int] = []
    run_with_hydra("config", ["study=train", *rest], lambda config: codes.append(_run_trial(config)))
    return max(codes, default=OK)


def _run_trial(config: StudyConfig) -> int:
    from rankexp.progress import Display
    from rankexp.study.execution.audience import outcome_of
    from rankexp.study.session import run_trial

    with Display() as display:
        trial = run_trial(config, display)
    say(f"{trial.key}  {outcome_of(trial, config.decide.score)}")
    if trial.adapter.is_dir():  # one that failed or diverged has none
        say(f"adapter   {shown(trial.adapter)}")
    return SOME_FAILED if trial.result.status == "failed" else OK


def _flags(parser: argparse.ArgumentParser) -> None:
    hydra_flags(parser)
    meaning = "train one trial for each value of a list: trial.rank=4,8 trial.seed=0,1"
    parser.add_argument("-m", "--multirun", action="store_true", help=meaning)


COMMAND = Command(
    Section.TRAIN,
    "train single trials",
    run,
    overrides=(
        *("workspace", "device", "threads", "attention", "gradient_checkpointing"),
        *("checkpoint_every", "lease_seconds", "storage"),
        *("trial", "model", "task", "lora", "train", "tracking"),
    ),
    flags=_flags,
    notes=lambda: (
        "Write option=value to change an option: trial.rank=8 train.steps=200. A part as a whole is chosen by the name "
        "of its file: task=csv, model=local, lora=rslora. `--cfg job` shows what comes of it and trains nothing."
    ),
    place=2,
)
