"""A data set as a user names it: a file, a folder, or an id on the hub, with the splits that are wanted of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankexp.data.arrow_rows import in_short, read_arrow
from rankexp.data.folders import Files, Part, files_of, read_folder
from rankexp.data.readers import FORMATS, read_bytes, read_table
from rankexp.data.splits import SPLITS
from rankexp.data.table import TaskError, brief
from rankexp.safety.printable import printable

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """Tables of one data set.

    Attributes:
        parts: The files that were read.
        given: Whether their splits are those of :data:`rankexp.data.splits.SPLITS`, so that nothing is dealt.
    """

    parts: tuple[Part, ...]
    given: bool = False


def read_source(
    path: str, say: Say, *, subset: str | None = None, split: str | None = None, revision: str | None = None
) -> Source:
    """Read a data set.

    Args:
        path: A file, a folder, or an id on the hub.
        say: Is told which splits are read where there are several, and what is fetched.
        subset: Which of several data sets in one repository.
        split: Names of its own splits, joined by ``+``; else all four if they are train, tune, decide and test, else
            train, else the only one.
        revision: Which version on the hub.

    Raises:
        TaskError: It cannot be had or read.
    """
    place = _at_home(path)
    if place.is_dir():
        return _chosen(place, files_of(place, subset), split, say)
    if place.exists() or _names_a_file(path):
        return Source((_file(place, subset, split),))
    found = from_hub(path, revision, say)
    return _chosen(found, files_of(found, subset, of_hub=True), split, say)


def from_hub(name: str, revision: str | None, say: Say) -> Path:
    """Fetch the data files of a repository on the hub into the hub's own cache; no script comes along.

    Raises:
        TaskError: It is no id, or it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["README.md", "*.arrow", *(f"*{kind}{gz}" for kind in FORMATS for gz in ("", ".gz"))]
    try:
        say(f"fetching data set {printable(name)} from the hub, where it is not in its cache")
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=wanted))
    except HFValidationError as error:
        raise TaskError(f"option 'task.path' is {name!r}, which is no file, no folder and no hub id.") from error
    except Exception as error:  # whatever the hub client meets: no network, no such id, no rights
        raise TaskError(
            f"option 'task.path' is {name!r}, which is no file or folder here and cannot be had from the hub:"
            f" {in_short(error)}."
        ) from error


def _at_home(path: str) -> Path:
    try:
        return Path(path).expanduser() if path.startswith("~") and not Path(path).exists() else Path(path)
    except (RuntimeError, ValueError, OSError):  # no such user, or no name of a file
        return Path(path)


def _names_a_file(path: str) -> bool:
    lower = path.lower().removesuffix(".gz")
    return lower.endswith((*FORMATS, ".arrow")) or path.startswith(("/", ".", "~")) or path.count("/") > 1


def _file(path: Path, subset: str | None, split: str | None) -> Part:
    for option, value in (("task.subset", subset), ("task.source_split", split)):
        if value is not None:
            raise TaskError(f"option {option!r} is {value!r}, but {printable(str(path))} is a file by itself.")
    if path.suffix.lower() == ".arrow":
        shown = printable(str(path))
        return Part("", "", read_arrow(shown, read_bytes(path, f"option 'task.path' is {str(path)!r}")))
    return Part("", "", read_table(path, "option 'task.path'"))


def _chosen(folder: Path, files: Files, split: str | None, say: Say) -> Source:
    wanted, given = _wanted(folder, list(files.splits), split)
    left = [name for name in files.splits if name not in wanted]
    if left:
        say(f"of {printable(str(folder))} split {'+'.join(wanted)} is read, and not {', '.join(left)}")
    if files.unused:
        say(f"of {printable(str(folder))} {len(files.unused)} files of no split are not read, first {files.unused[0]}")
    return Source(tuple(read_folder(folder, wanted, files)), given)


def _wanted(folder: Path, known: Sequence[str], split: str | None) -> tuple[list[str], bool]:
    if split is None and set(known) == set(SPLITS):
        return list(SPLITS), True
    if split is None and len(known) == 1:
        return list(known), False
    wanted = ["train"] if split is None else list(dict.fromkeys(name.strip() for name in split.split("+")))
    for name in wanted:
        if name not in known:
            listed = ", ".join(brief(name) for name in known if name) or "none"
            said = f"is {split!r}, but" if split is not None else "is needed:"
            raise TaskError(f"option 'task.source_split' {said} {printable(str(folder))} has the splits {listed}.")
    return wanted, False
