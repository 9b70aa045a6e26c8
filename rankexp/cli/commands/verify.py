"""``rankexp verify``: whether a study's record is whole."""

from __future__ import annotations

import argparse
from pathlib import Path

from rankexp.candidates import CandidateName
from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import DAMAGED, INPUT_OUTPUT, OK, SOME_FAILED, say
from rankexp.cli.settings import study_folder


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    study_argument(parser)
    parser.add_argument(
        "--peft", action="store_true", help="also load the first adapter of each rank with PEFT and compare its scores"
    )


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Check a study's record, and list what keeps it from being whole."""
    from rankexp.record.studies import StudyStore
    from rankexp.study.verify import problems

    folder = study_folder(options.study, rest)
    found = problems(folder)
    for problem in found:
        say(f"{problem.kind:<8} {problem.text}")
    kinds = {problem.kind for problem in found}
    if kinds & {"damaged", "foreign"}:
        return DAMAGED
    if "unreadable" in kinds:
        return INPUT_OUTPUT
    if found:
        return SOME_FAILED
    trials = len({item.key for item in StudyStore(folder).read().planned})
    say(f"{folder.name}: {trials} trials, each with one valid result; every hash holds")
    return _verified_with_peft(folder) if options.peft else OK


def _verified_with_peft(folder: Path) -> int:
    """Load adapters with PEFT, and list how far their scores are from the record."""
    from rankexp.export.with_peft import read_with_peft

    whole = True
    for found in read_with_peft(folder, say):
        verdict = "as recorded" if found.passed else "NOT as recorded"
        say(
            f"{CandidateName.of_rank(found.rank or 0):<6} seed {found.seed}  {found.key}  {found.examples} examples, "
            f"losses differ by at most {found.loss_difference:.1e}, {found.agreement:.1%} agree: {verdict}"
        )
        whole = whole and found.passed
    return OK if whole else DAMAGED


COMMAND = Command(
    Section.KEEP,
    "check every file of a study against its hash, and every trial for one valid result",
    run,
    arguments,
    place=1,
)
