"""Files of a report on their way into MLflow: those that rankexp wrote, and no other."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from rankexp.record.files import RecordError, inside, parse_file

_LOG = logging.getLogger("rankexp")
_OURS = re.compile(r"report\.(html|md|json)|trials\.csv|figures/[\w.-]{1,100}\.(svg|png)")


def report_files(report: Path, root: Path) -> dict[str, bytes]:
    """Read the files of a report, without following any link.

    Args:
        report: The folder of the report.
        root: The folder that it must lie in.

    Returns:
        Content of each file by its path in the report.
    """
    found: dict[str, bytes] = {}
    for path in (path for folder in (report, report / "figures") for path in _listed(folder, root)):
        name = path.relative_to(report).as_posix()
        if not _OURS.fullmatch(name):
            continue
        try:
            found[name] = parse_file(path, bytes)
        except RecordError as error:
            _LOG.warning("%s It is not brought over to MLflow.", error)
    return found


def _listed(folder: Path, root: Path) -> list[Path]:
    """List a folder; nothing of a link, or of what lies elsewhere."""
    if folder.is_symlink():
        _LOG.warning("%s is a link, and is not brought over to MLflow.", folder)
        return []
    try:
        return [Path(folder, name) for name in sorted(os.listdir(inside(folder, root)))]
    except (RecordError, FileNotFoundError, NotADirectoryError):
        return []
