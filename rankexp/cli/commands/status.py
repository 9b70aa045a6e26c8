"""``rankexp status``: which studies there are, and how far one is."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from rankexp.cli.command import Command, Section
from rankexp.cli.output import DAMAGED, OK, say
from rankexp.cli.settings import study_folder, workspace_of

_UNFINISHED = "UNFINISHED. Not decided yet: the study is unfinished."
"""What a report says then, too."""


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
    from rankexp.cli.study_list import reported
    from rankexp.record.studies import StudyStore
    from rankexp.record.trials import TrialStore
    from rankexp.study.verify import at_work

    store = StudyStore(folder)
    record, trials = store.read(), TrialStore(store.workspace)
    keys = dict.fromkeys(item.key for item in record.planned)
    results = {key: trials.read(key).result for key in keys if key in trials}
    outcomes = {key: result.status for key, result in results.items()}
    last = max((result.finished for result in results.values()), default="")
    report = reported(store, last) if len(outcomes) == len(keys) else None
    if any(item.phase == "decide" and item.key not in outcomes for item in record.planned):
        say(f"{record.name}: {_UNFINISHED}")
    else:
        say(f"{record.name}: {_concluded(folder) if report is None else report}")
    counts = Counter((item.phase, outcomes.get(item.key, "waiting")) for item in record.planned)
    counts += Counter((item.planned.phase, "pruned") for item in store.pruned())
    for (phase, status), count in counts.items():
        say(f"  {phase:<10} {count:>4} {status}")
    for sentence in at_work(store.folder):
        say(sentence)
    return OK


def _concluded(folder: Path) -> str:
    """Work out what the trials allow to be said, where no report says so: it takes what statistics take to load."""
    from rankexp.analysis.study import load_study
    from rankexp.report.document import brief

    doc = brief(load_study(folder))
    return f"{doc['status']}. {doc['summary']['headline']}"


COMMAND = Command(
    Section.READ,
    "list the studies of a workspace, or say how far one is",
    run,
    arguments,
    place=1,
)
