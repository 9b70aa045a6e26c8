"""``rankexp status``: which studies there are, and how far one is."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from rankexp.cli.command import Command, Section
from rankexp.cli.output import DAMAGED, OK, say
from rankexp.cli.settings import study_folder, workspace_of


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("study", nargs="?", help="name of a study, or its folder; all of the workspace by default")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """List the studies of a workspace, or say how far one is."""
    if options.study is None:
        return _list(workspace_of(rest))
    if "=" in options.study and options.study.partition("=")[0] in COMMAND.settings:
        return _list(workspace_of([options.study, *rest]))
    return _say_how_far(study_folder(options.study, rest))


def _list(workspace: Path) -> int:
    from rankexp.cli.study_list import lines_of, studies_of
    from rankexp.option_errors import ConfigError

    found = list(studies_of(workspace))
    if not found:
        raise ConfigError(f"{workspace} holds no study; name the workspace with workspace=FOLDER.")
    widest = max([len("study"), *(len(one.name) for one in found if one.readable)])
    say(f"{'study':<{widest}}  {'trials':>9}  {'state':<10}  {'verdict':<17}  begun (UTC)")
    for one in found:
        say(lines_of(one, widest).replace("\n", "\\n"))
    return OK if all(one.readable for one in found) else DAMAGED


def _say_how_far(folder: Path) -> int:
    from rankexp.analysis.study import load_study
    from rankexp.report.document import brief
    from rankexp.study.verify import at_work

    study = load_study(folder)
    doc = brief(study)
    say(f"{study.name}: {doc['status']}. {doc['summary']['headline']}")
    outcomes = {key: trial.result.status for key, trial in study.by_key.items()}
    counts = Counter((item.phase, outcomes.get(item.key, "waiting")) for item in study.record.planned)
    counts += Counter((item.planned.phase, "pruned") for item in study.pruned)
    for (phase, status), count in counts.items():
        say(f"  {phase:<10} {count:>4} {status}")
    for sentence in at_work(study.store.folder):
        say(sentence)
    return OK


COMMAND = Command(
    Section.READ,
    "list the studies of a workspace, or say how far one is",
    run,
    arguments,
    place=1,
)
