"""``rankexp sync``: a study's runs into MLflow."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK, say
from rankexp.cli.settings import study_folder

_URI = "tracking.uri="


def run(options: argparse.Namespace, rest: list[str]) -> int:
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


COMMAND = Command(
    Section.KEEP,
    "bring a study's runs into MLflow",
    run,
    arguments=study_argument,
    settings=("workspace", "storage", "tracking.uri"),
    place=3,
)
