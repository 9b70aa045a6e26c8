"""``rankexp power``: what more evidence would give."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK, say
from rankexp.cli.settings import study_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    study_argument(parser)
    parser.add_argument("--target", type=float, default=0.8, help="power aimed at (default 0.8)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Say what more seeds or examples would give."""
    from rankexp.analysis.study import load_study
    from rankexp.option_errors import ConfigError
    from rankexp.report.plan import plan_text

    try:
        say(plan_text(load_study(study_folder(options.study, rest)), options.target))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return OK


COMMAND = Command(
    Section.READ,
    "say what more seeds or examples would give",
    run,
    arguments,
    place=4,
)
