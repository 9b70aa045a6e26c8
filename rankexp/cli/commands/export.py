"""``rankexp export``: an adapter of a study for other tools."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK, say
from rankexp.cli.settings import study_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    study_argument(parser)
    parser.add_argument(
        "--format",
        choices=("peft", "serving", "merged"),
        default="peft",
        help="peft: as PEFT has it; serving: one rank for all, for servers such as vLLM; merged: the whole model",
    )
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where to write; not there yet, or empty")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, help="the best seed of this rank; else of the rank that the verdict names")
    which.add_argument("--trial", metavar="KEY", help="this trial")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Export, and say what was measured."""
    from rankexp.export.export import export

    folder = study_folder(options.study, rest)
    done = export(folder, options.format, options.out, trial=options.trial, rank=options.rank, say=say)
    for note in done.notes:
        say(note)
    scores = ", ".join(f"{name} {value:.5g} is {done.after[name]:.5g}" for name, value in done.before.items())
    say(f"a logit differs by at most {done.apart:.2g}; {scores}")
    say(f"\n{done.use}\n")
    say(f"{done.folder} written, with a card in README.md")
    return OK


COMMAND = Command(
    Section.READ,
    "write an adapter for other tools, checked: PEFT, a server, or merged into its base",
    run,
    arguments,
    place=7,
)
