"""``rankexp resume``: a study goes on as it was begun."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.outcome import code_of, print_outcome
from rankexp.cli.settings import study_folder


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Go on with a study as its record describes it."""
    from rankexp.progress import Display
    from rankexp.study.session import resume_study

    folder = study_folder(options.study, rest, "resume takes no options: a study goes on as it was begun.", begun=True)
    with Display() as display:
        outcome = resume_study(folder, display)
    print_outcome(outcome, folder.parent.parent)
    return code_of(outcome)


COMMAND = Command(
    Section.TRAIN,
    "go on with a study as it was begun; damaged trials are trained anew",
    run,
    arguments=study_argument,
    place=3,
)
