"""``rankexp report``: a study's report again, or several studies on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankexp.cli.command import Command, Section
from rankexp.cli.outcome import compared
from rankexp.cli.output import OK, say, shown
from rankexp.cli.settings import study_folder, workspace_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("studies", nargs="+", metavar="study", help="name of a study, or its folder")
    parser.add_argument("--out", type=Path, help="folder of a comparison (default comparisons/ in the workspace)")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Write the report of a study again, or put several on one page."""
    from rankexp.analysis.study import load_study
    from rankexp.option_errors import ConfigError
    from rankexp.report.build import write_report

    words = [*options.studies, *rest]
    names = [word for word in words if not word.startswith("workspace=")]
    settings = [word for word in words if word not in names]
    studies = [load_study(study_folder(name, settings)) for name in names]
    if len(studies) == 1:
        if options.out:
            raise ConfigError("--out is for a comparison; a study's report lies in the study's folder.")
        say(shown(write_report(studies[0])))
        return OK
    say(shown(compared(studies, workspace_of(settings), options.out)))
    return OK


COMMAND = Command(
    Section.READ,
    "write the report of a study again, or compare several",
    run,
    arguments,
    place=2,
)
