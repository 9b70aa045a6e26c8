"""``rankexp recipe``: what another trainer is told."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK, say
from rankexp.cli.settings import study_folder

TOOLS = ("peft", "trl", "axolotl", "llamafactory", "unsloth", "torchtune", "swift")
"""Also the modules of :mod:`rankexp.report.recipes`, which are not loaded for a page of help."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    study_argument(parser)
    parser.add_argument("--for", choices=TOOLS, required=True, dest="tool", help="the trainer")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, help="of this rank; else of the rank that the verdict names")
    which.add_argument("--trial", metavar="KEY", help="of this trial")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Print a recipe, and after it what the tool cannot be told."""
    from rankexp.analysis.study import load_study
    from rankexp.report.recipe import write_recipe
    from rankexp.report.recipes import recipes

    study = load_study(study_folder(options.study, rest))
    written = write_recipe(study, recipes()[options.tool], options.rank, options.trial)
    say(written.text)
    for note in written.notes:
        say(f"# {note}")
    return OK


COMMAND = Command(
    Section.READ,
    "what another trainer is told to train the chosen rank: PEFT, TRL, axolotl and others",
    run,
    arguments,
    place=7,
)
