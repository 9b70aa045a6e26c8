"""The folder of a report: which files in it are rankexp's own, so that nothing of anybody else is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from typing_extensions import TypedDict

from rankexp.option_errors import ConfigError
from rankexp.record.files import RecordError, inside, parse_file, pretty_json, sha256, write_atomic
from rankexp.record.json_shape import shaped_json

MANIFEST = "manifest.json"


class _Manifest(TypedDict):
    """What the manifest holds: SHA-256 of each file that was written, by its path in the folder."""

    files: dict[str, str]


def write_files(folder: Path, files: Mapping[str, bytes], root: Path | None = None) -> None:
    """Write the files of a report, each whole, the last one last, and delete what an earlier report wrote besides.

    Args:
        folder: The report's folder.
        files: Content of each file by its path in the folder.
        root: A folder of rankexp's own that it lies in; there, files of these names are a report's in any case.

    Raises:
        ConfigError: A file of that name is there, and no report has written it.
        ForeignRecordError: A folder of the report leads out of it, or it out of ``root``.
    """
    inside(folder, root or folder)
    for name in files:
        inside((folder / name).parent, folder)
    known = written(folder)
    if root is None and (strange := [name for name in files if name not in known and os.path.lexists(folder / name)]):
        raise ConfigError(
            f"{folder / strange[0]} is there already, and no report has written it; choose another folder."
        )
    _remove_stale(folder, known.keys() - files.keys(), known)
    manifest = {"files": {name: sha256(data) for name, data in files.items()}}
    write_atomic(folder / MANIFEST, pretty_json({"files": {**known, **manifest["files"]}}).encode())
    for name, data in files.items():
        write_atomic(folder / name, data)
    write_atomic(folder / MANIFEST, pretty_json(manifest).encode())


def written(folder: Path) -> dict[str, str]:
    """Return what a report has written into a folder: the SHA-256 of each file by its path there."""
    with suppress(RecordError):  # there is none, or it says nothing that could be believed
        found: dict[str, str] = parse_file(folder / MANIFEST, lambda data: shaped_json(_Manifest, data)["files"])
        return found
    return {}


def _remove_stale(folder: Path, names: set[str], known: Mapping[str, str]) -> None:
    """Delete figures that an earlier report wrote and this one has not, as long as they are still what it wrote."""
    for name in sorted(names):
        path = folder / name
        if Path(name).parts[:-1] != ("figures",) or Path(name).suffix not in {".svg", ".png"}:
            continue
        with suppress(RecordError):  # changed since, gone, or a link
            if parse_file(path, sha256) == known[name]:
                path.unlink()
