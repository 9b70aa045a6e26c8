"""What a command says of studies that it ran."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.output import OK, SOME_FAILED, print_verdict, say, shown

if TYPE_CHECKING:
    from rankexp.analysis.study import Study
    from rankexp.study.session import Outcome


def print_outcome(outcome: Outcome, workspace: Path) -> None:
    """Print the verdict of a study that was run, and where its report and its mirror are."""
    from rankexp.report.document import brief

    print_verdict(brief(outcome.study))
    say(f"\ntrained   {outcome.trained} trials, {len(outcome.study.by_key)} in the study")
    say(f"report    {shown(outcome.report)}")
    tracking = outcome.study.config.tracking
    if tracking.name == "mlflow":
        mirror = _mirror(outcome.study.store.workspace, tracking.uri)
        say(f"MLflow    {mirror or f'rankexp ui{where(workspace)}'}")


def code_of(outcome: Outcome) -> int:
    """Return the exit code of a study that was run."""
    return SOME_FAILED if (outcome.study.trials["status"] == "failed").any() else OK


def _mirror(workspace: Path, uri: str | None) -> str | None:
    """Return where runs are mirrored; None for the workspace's own store."""
    from rankexp.tracking import TrackingError, find_store, shown

    try:
        found = find_store(workspace, uri)
    except TrackingError:
        return f"rankexp sync STUDY tracking.uri={shown(uri or '')}"
    return found and shown(found)


def where(workspace: Path) -> str:
    """Return what to add to a command for a workspace that is not the usual one, as a shell wants it."""
    place = shown(workspace)
    return "" if place == "runs" else f" {shlex.quote(f'workspace={place}')}"


def compared(studies: Sequence[Study], workspace: Path, folder: Path | None = None) -> Path:
    """Put studies on one page, in the workspace's ``comparisons/`` unless told where."""
    from rankexp.canonical_json import content_key
    from rankexp.report.compare import write_comparison

    name = f"{studies[0].name}+{len(studies) - 1}-{content_key([study.name for study in studies], 8)}"
    if folder is not None:
        return write_comparison(studies, folder)
    return write_comparison(studies, workspace / "comparisons" / name, workspace)
