"""Folders of data files: saved by the `datasets` library, or laid out as a repository of the hub.

Only files of :data:`rankexp.data.readers.FORMATS` and Arrow are read, all of them inside the folder. A loading script
is never run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from rankexp.data.arrow_rows import read_arrow
from rankexp.data.readers import FORMATS, read_bytes, read_table
from rankexp.data.splits import SPLITS
from rankexp.data.table import Table, TaskError, brief
from rankexp.safety.printable import printable

_ABOUT = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
"""Files that say something of the data and hold none."""
_KEYWORDS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words in the name of a file or folder that tell its split, as the hub reads them."""
_SHARD = re.compile(r"(?P<split>\w[\w.]*)-\d{5}-of-\d{5}")
_LARGEST_ABOUT = 16 << 20
_MOST_FILES = 100_000


@dataclass(frozen=True)
class Part:
    """A file of a data set.

    Attributes:
        split: The split that it belongs to, by its folder's own names; empty where it has none.
        name: The file as ids show it: its path in the folder, without ending if that tells it from others; empty for a
            file by itself.
        table: Its rows.
    """

    split: str
    name: str
    table: Table


@dataclass(frozen=True)
class Files:
    """Data files of a folder.

    Attributes:
        root: The folder.
        splits: The files of each split, relative to it.
        unused: Data files that belong to none of them.
    """

    root: Path
    splits: Mapping[str, Sequence[str]]
    unused: Sequence[str] = ()


def read_folder(folder: Path, wanted: Sequence[str], files: Files) -> list[Part]:
    """Read all files of these splits.

    Args:
        folder: The folder as the user wrote it, for messages.
        wanted: Names of splits.
        files: As :func:`files_of` found them.

    Raises:
        TaskError: A file cannot be read.
    """
    named = [(split, name) for split in wanted for name in files.splits[split]]
    stems = {_stem(name) for _, name in named}
    return [
        Part(
            split,
            _stem(name) if len(stems) == len(named) else f"{split}/{name}",
            _read(files.root / name, folder / name),
        )
        for split, name in named
    ]


def files_of(folder: Path, subset: str | None = None, *, of_hub: bool = False) -> Files:
    """Find the data files of a folder.

    Args:
        folder: One that ``save_to_disk`` wrote, or one in the layout of the hub: ``data/train-00000-of-00001.parquet``,
            ``train.jsonl``, a folder for each subset, or what ``configs`` in ``README.md`` say.
        subset: Which of several data sets in one repository.
        of_hub: Whether it is a snapshot in the hub's own cache, whose files are links into that.

    Raises:
        TaskError: There are none, or it is not clear which are meant.
    """
    root = folder.parent.parent if of_hub else folder
    if (folder / "dataset_dict.json").exists():
        return _saved_splits(folder, root)
    if (folder / "state.json").exists():
        return Files(folder, {"": _saved(folder, root)})
    names = _data_files(folder, root)
    if not names:
        raise TaskError(f"{_shown(folder)} holds no data file; {_known()} are read{_script(folder)}.")
    configs = _configs(folder, root)
    if configs:
        return _of_config(folder, configs, names, subset)
    return _by_name(folder, names, subset)


def _known() -> str:
    return f"{', '.join(FORMATS)}, each also with .gz, and what datasets saves"


def _script(folder: Path) -> str:
    return "; a loading script is never run" if any(folder.glob("*.py")) else ""


def _shown(path: Path) -> str:
    return printable(str(path))


def _stem(name: str) -> str:
    return re.sub(r"(\.[a-z]+)(\.gz)?$", "", name, flags=re.IGNORECASE)


def _read(path: Path, shown: Path) -> Table:
    if path.suffix == ".arrow":
        return read_arrow(_shown(shown), read_bytes(path, f"data file {_shown(shown)}"))
    return read_table(path, "the data file")


def _saved_splits(folder: Path, root: Path) -> Files:
    named = _object(folder / "dataset_dict.json", root).get("splits")
    if not isinstance(named, list) or not named or not all(map(_is_plain_name, named)):
        raise TaskError(f"{_shown(folder / 'dataset_dict.json')} does not list the names of splits.")
    splits = {name: [f"{name}/{file}" for file in _saved(folder / name, root)] for name in named}
    return Files(folder, splits)


def _saved(folder: Path, root: Path) -> list[str]:
    """Return the files that ``state.json`` lists, which lie beside it."""
    state = _object(folder / "state.json", root)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise TaskError(f"{_shown(folder)} was saved with a selection of rows; save it anew with a newer datasets.")
    listed = state.get("_data_files")
    items = listed if isinstance(listed, list) else []
    names = [item.get("filename") if isinstance(item, dict) else None for item in items]
    if not names or not all(_is_plain_name(name) and str(name).endswith(".arrow") for name in names):
        raise TaskError(f"{_shown(folder / 'state.json')} does not list .arrow files of its folder.")
    for name in names:
        _check_place(folder / str(name), root)
    return [str(name) for name in names]


def _is_plain_name(name: object) -> bool:
    return isinstance(name, str) and re.fullmatch(r"\w[\w .+-]*", name) is not None


def _object(path: Path, root: Path) -> dict[str, Any]:
    _check_place(path, root)
    data = read_bytes(path, f"file {_shown(path)}")
    try:
        found = json.loads(data) if len(data) <= _LARGEST_ABOUT else None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{_shown(path)} is not JSON.") from error
    if not isinstance(found, dict):
        raise TaskError(f"{_shown(path)} is not a JSON object.")
    return found


def _data_files(folder: Path, root: Path) -> list[str]:
    """List the data files in a folder, relative to it; a link that leads out of it is refused."""
    found: list[str] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in folders:
            _check_place(Path(where, name), root)
        for name in sorted(names):
            if name not in _ABOUT and not name.startswith(".") and _kind(name):
                _check_place(Path(where, name), root)
                found.append(Path(where, name).relative_to(folder).as_posix())
        if len(found) > _MOST_FILES:
            raise TaskError(f"{_shown(folder)} holds more than {_MOST_FILES:,} data files.")
    return found


def _kind(name: str) -> str:
    """Return the format of a data file, or nothing."""
    lower = name.lower()
    known = [kind for kind in (*FORMATS, ".arrow") if lower.removesuffix(".gz").endswith(kind)]
    return known[0] if known and not lower.endswith(".arrow.gz") else ""


def _check_place(path: Path, root: Path) -> None:
    real, top = os.path.realpath(path), os.path.realpath(root)
    if os.path.commonpath([real, top]) != top:
        raise TaskError(f"{_shown(path)} leads out of the folder of the data, to {printable(real)}.")


def _by_name(folder: Path, names: list[str], subset: str | None) -> Files:
    """Tell splits by the names of files and folders."""
    if subset is not None:
        inside = [name for name in names if subset in Path(name).parts[:-1]]
        if not inside:
            folders = sorted({part for name in names for part in Path(name).parts[:-1]})
            raise TaskError(
                f"option 'task.subset' is {subset!r}, but {_shown(folder)} has no folder of that name"
                f"{'; it has ' + ', '.join(map(brief, folders[:20])) if folders else ''}."
            )
        names = inside
    _check_one_kind(folder, names)
    splits: dict[str, list[str]] = {}
    for name in names:
        splits.setdefault(_split_of(name), []).append(name)
    unused = splits.pop("", [])
    return Files(folder, splits, unused) if splits else Files(folder, {"": unused})


def _check_one_kind(folder: Path, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(_kind(name), name)
    if len(first) > 1:
        listed = " and ".join(list(first.values())[:2])
        raise TaskError(f"{_shown(folder)} holds data files of several formats, {printable(listed)}; name one file.")


def _split_of(name: str) -> str:
    """Return the split that a path tells, or nothing.

    >>> [_split_of(name) for name in ("data/train-00000-of-00002.parquet", "dev.jsonl", "test/a.csv", "a.csv")]
    ['train', 'validation', 'test', '']
    >>> _split_of("tune.jsonl"), _split_of("to_fine_tune.jsonl")
    ('tune', '')
    """
    parts = [_stem(Path(name).name), *reversed(Path(name).parts[:-1])]
    if shard := _SHARD.fullmatch(parts[0]):
        return _KEYWORDS.get(shard["split"].lower(), shard["split"])
    for part in parts:
        if part.lower() in SPLITS:
            return part.lower()
        words = [word for word in re.split(r"[^a-z0-9]+", part.lower()) if word in _KEYWORDS]
        if words:
            return _KEYWORDS[words[0]]
    return ""


def _configs(folder: Path, root: Path) -> list[dict[str, Any]]:
    """Return what ``configs`` in the head of ``README.md`` say, as far as they name files."""
    import yaml

    path = folder / "README.md"
    if not path.exists():
        return []
    _check_place(path, root)
    text = read_bytes(path, f"file {_shown(path)}")[:_LARGEST_ABOUT].decode("utf-8-sig", "replace")
    head = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", text, re.DOTALL)
    try:
        values = yaml.safe_load(head[1]) if head else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TaskError(f"{_shown(path)} begins with what is not YAML.") from error
    configs = values.get("configs") if isinstance(values, dict) else None
    listed = configs if isinstance(configs, list) else []
    return [c for c in listed if isinstance(c, dict) and (c.get("data_files") or c.get("data_dir"))]


def _of_config(folder: Path, configs: list[dict[str, Any]], names: list[str], subset: str | None) -> Files:
    known = {str(config.get("config_name", "default")): config for config in configs}
    chosen = subset if subset is not None else next(iter(known)) if len(known) == 1 else _default(known)
    if chosen not in known:
        listed = ", ".join(map(brief, list(known)[:20]))
        said = f"option 'task.subset' is {subset!r}, but" if subset is not None else "option 'task.subset' is needed:"
        raise TaskError(f"{said} {_shown(folder)} has the subsets {listed}.")
    if not known[chosen].get("data_files"):
        inside = _data_dir(known[chosen])
        names = [name for name in names if name.startswith(inside)]
        if not names:
            raise TaskError(f"{_shown(folder / 'README.md')} names a folder {inside!r} that holds no data file.")
        return _by_name(folder, names, None)
    splits = {
        split: [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        for split, patterns in _patterns(folder, known[chosen]).items()
    }
    for split, found in splits.items():
        if not found:
            raise TaskError(f"{_shown(folder / 'README.md')} names files of split {split!r} that the folder lacks.")
    return Files(folder, splits)


def _data_dir(config: Mapping[str, Any]) -> str:
    """Return the folder that a subset is in, as names of files in it begin; nothing for the folder of all."""
    place = PurePosixPath(str(config.get("data_dir") or ".").strip("/")).as_posix()
    return "" if place == "." else f"{place}/"


def _default(known: Mapping[str, Mapping[str, Any]]) -> str | None:
    return next((name for name, config in known.items() if config.get("default") is True or name == "default"), None)


def _patterns(folder: Path, config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the patterns of the files of each split: one, a list, or a list of splits with their paths."""
    listed = config["data_files"]
    items = listed if isinstance(listed, list) else [listed]
    splits: dict[str, list[str]] = {}
    for item in items:
        split, path = (item.get("split"), item.get("path")) if isinstance(item, dict) else ("train", item)
        paths = path if isinstance(path, list) else [path]
        if not isinstance(split, str) or not all(isinstance(one, str) for one in paths):
            raise TaskError(f"{_shown(folder / 'README.md')} names data files in a form that is not known.")
        base = _data_dir(config)
        named = [str(one).removeprefix("./").replace("**/", "*") for one in paths]
        splits.setdefault(split, []).extend(base + one for one in named)
    return splits
