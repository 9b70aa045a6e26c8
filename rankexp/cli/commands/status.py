"""``rankexp status``: how far a study is."""

from __future__ import annotations

import argparse
from collections import Counter

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK, say
from rankexp.cli.settings import study_folder


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Say how far a study is."""
    from rankexp.analysis.study import load_study
    from rankexp.report.document import brief
    from rankexp.study.verify import at_work

    study = load_study(study_folder(options.study, rest))
    doc = brief(study)
    say(f"{study.name}: {doc['status']}. {doc['summary']['headline']}")
    counts = Counter(zip(study.trials["phase"], study.trials["status"], strict=True))
    for (phase, status), count in counts.items():
        say(f"  {phase:<10} {count:>4} {status}")
    for sentence in at_work(study.store.folder):
        say(sentence)
    return OK


COMMAND = Command(
    Section.READ,
    "say how far a study is",
    run,
    arguments=study_argument,
    place=1,
)
