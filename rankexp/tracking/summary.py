"""The one run of a study that holds its question, its verdict and its report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.safety.printable import markdown
from rankexp.tracking import rows
from rankexp.tracking.artifacts import report_files
from rankexp.tracking.client import Client
from rankexp.tracking.page import open_experiment
from rankexp.tracking.reconcile import SOURCE, workspace_lock

if TYPE_CHECKING:
    from rankexp.analysis.study import Study

_LONGEST_SENTENCE = 500


def write_summary(client: Client, study: Study, report: Path) -> None:
    """Write a study's summary run, or bring the one that is there up to date.

    Args:
        client: The store.
        study: The study.
        report: Folder of its report; its files become artifacts.
    """
    with workspace_lock(study.store.workspace):
        run = _summary_run(client, study)
    points = rows.verdict_points(study.verdict, rows.milliseconds(""), study.comparison.other_means)
    client.log(run, points, tags=_tags(study))
    files = report_files(report, study.store.workspace)
    client.log_files(run, {f"report/{name}": data for name, data in files.items()})
    client.end(run, "FINISHED", _end(study))


def _end(study: Study) -> int:
    moments = [study.record.created, *(trial.result.finished for trial in study.by_key.values())]
    return max(rows.milliseconds(moment) for moment in moments)


def _summary_run(client: Client, study: Study) -> str:
    experiment = open_experiment(client, study.record)
    for run in client.runs(experiment, study.name, kind="summary"):
        if run.info.status == "FINISHED":
            return str(run.info.run_id)
        client.delete(run.info.run_id)  # half written by a process that ended
    tags = {"kind": "summary", "study": study.name, "mlflow.runName": f"{study.name} summary", **SOURCE}
    run = client.create_run(experiment, tags, rows.milliseconds(study.record.created))
    client.log(run, params=rows.study_params(study.record))
    client.log_dataset(run, rows.dataset_fields(study.record))
    client.end(run, "FINISHED", _end(study))
    return run


def _tags(study: Study) -> dict[str, str]:
    tags = rows.verdict_tags(study.verdict, asked=study.asked)
    rank = f", rank {tags['chosen_rank']}" if tags.get("chosen_rank", "none") != "none" else ""
    note = f"**{tags['verdict']}**{rank}: {tags['reason']}\n\nThe report is among the artifacts: `report/report.html`."
    if said := study.record.said_of_rows:
        note += (
            "\n\nData: " + "; ".join(markdown(rows.shortened(sentence, _LONGEST_SENTENCE)) for sentence in said) + "."
        )
    return {**tags, "mlflow.note.content": note, "record": str(study.store.folder)}
