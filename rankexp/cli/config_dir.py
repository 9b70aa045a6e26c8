"""Files of a ``--config-dir``, which may be somebody else's: what they may say, checked before Hydra does anything.

They may set rankexp's own options and plain settings of known launchers, refer to other options, and build on each
other; nothing else. Hydra reads such a folder through :class:`CheckedFolder` alone, here and on every machine of a
cluster, so nothing is acted on that was not checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from rankexp.cli.resources import resource
from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError
from rankexp.record.files import RecordError, inside, parse_file
from rankexp.safety.printable import printable

LAUNCHERS = ("basic", "submitit_slurm", "submitit_local", "ray")
_SCHEME = "rankexp-folder"
_LARGEST = 1 << 18
_DEEPEST = 40
_SHOWN = 200
_OPTIONS = frozenset(field.name for field in fields(StudyConfig))
_OF_JOBS = (
    *("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name", "stderr_to_stdout"),
    *("partition", "qos", "comment", "constraint", "exclude", "gres", "cpus_per_gpu", "gpus_per_task", "mem_per_gpu"),
    *("mem_per_cpu", "account", "signal_delay_s", "max_num_timeout", "array_parallelism"),
)
"""Settings that say what a job needs, and run nothing."""
_OF_RAY = (
    *("init.num_cpus", "init.num_gpus", "init.object_store_memory", "init.include_dashboard", "init.log_to_driver"),
    *("remote.num_cpus", "remote.num_gpus", "remote.memory", "remote.max_retries", "remote.max_calls"),
)
_WORD = re.compile(r"[\w.:,+@%&|*\[\]-]{1,200}")
"""A setting of a job: no blank, which would end an option of a batch script, and nothing that a shell would act on."""
_REFERENCE = re.compile(r"\$\{\.*[A-Za-z_]\w*((\.[A-Za-z_]\w*)|(\[\w+\]))*\}")
_GROUP = re.compile(r"((override|optional) )*/?(?P<group>[A-Za-z_][\w./-]*)(@(?P<package>[\w.]+))?")
_CHOICE = re.compile(r"[A-Za-z0-9_][\w./-]*")
_FOLDER: ContextVar[Path | None] = ContextVar("folder of configurations", default=None)


class CheckedFolder(FileConfigSource):
    """Hydra's view of such a folder."""

    @staticmethod
    def scheme() -> str:
        """Return what the folder is called in Hydra's search path."""
        return _SCHEME

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file; never one outside."""
        return _stays(config_path) and bool(super().is_config(config_path))

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a folder; never one outside."""
        return not config_path or (_stays(config_path) and bool(super().is_group(config_path)))

    def load_config(self, config_path: str) -> ConfigResult:
        """Read and check a file.

        Raises:
            ConfigError: It says more than it may.
        """
        folder = Path(self.path)
        path = folder / self._normalize_file_name(config_path)
        text = _text(path, folder)
        if config_path.startswith("hydra/"):
            _refuse(path, "files of a folder 'hydra' say what Hydra runs")
        header = ConfigSource._get_header_dict(text[:512])
        _check_package(path, header.get("package"))
        values = _values(path, text)
        _check(path, values)
        return ConfigResult(self.provider, f"{_SCHEME}://{self.path}", OmegaConf.create(values), header)


class RankexpSearchPath(SearchPathPlugin):
    """Where Hydra looks besides ``conf``: the sweeps, and the folder of ``--config-dir``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add them, behind Hydra's and rankexp's own."""
        search_path.append("rankexp", f"file://{resource('sweeps')}")
        if (folder := _FOLDER.get()) is not None:
            search_path.append("command-line", f"{_SCHEME}://{folder}")


@contextmanager
def searching(folder: Path | None) -> Iterator[None]:
    """Have Hydra look in the sweeps, and in the folder of ``--config-dir``, as long as this lasts."""
    plugins = Plugins.instance()
    for kind, plugin in ((SearchPathPlugin, RankexpSearchPath), (ConfigSource, CheckedFolder)):
        if plugin not in plugins.discover(kind):
            plugins.register(plugin)
    before = _FOLDER.set(folder)
    try:
        yield
    finally:
        _FOLDER.reset(before)


def _stays(name: str) -> bool:
    return not os.path.isabs(name) and ".." not in name.split("/")


def _refuse(path: Path, why: str) -> NoReturn:
    raise ConfigError(f"file {printable(str(path))} is refused: {why}.")


def _cut(text: str) -> str:
    """Return the beginning of a text of somebody else, for a message."""
    return printable(text[:_SHOWN])


def _text(path: Path, folder: Path) -> str:
    real = Path(os.path.realpath(path))
    try:
        inside(path, folder)
        if real.stat().st_size > _LARGEST:
            _refuse(path, f"it has more than {_LARGEST} bytes")
        return parse_file(real, lambda data: data.decode("utf-8-sig"))
    except RecordError as error:
        raise ConfigError(printable(str(error))) from None


def _values(path: Path, text: str) -> dict[Any, Any]:
    try:
        _check_events(path, text)
        values = yaml.load(text, Loader=get_yaml_loader())
    except yaml.YAMLError as error:
        raise ConfigError(f"file {printable(str(path))} is not YAML: {_why(error)}.") from None
    except ConfigError:
        raise
    except ValueError as error:  # a number of thousands of digits
        _refuse(path, printable(str(error)).split(";")[0])
    if values is None:
        return {}
    return values if isinstance(values, dict) else _refuse(path, "it must hold options with values")


def _why(error: yaml.YAMLError) -> str:
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    mark: Any = getattr(error, "problem_mark", None)
    return printable(str(what)) + ("" if mark is None else f" in row {mark.line + 1}")


def _check_events(path: Path, text: str) -> None:
    """Refuse what takes a file apart, before it is put together: tags, anchors, and what is nested too deep."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        mark: Any = event.start_mark
        row = f"row {mark.line + 1}"
        if getattr(event, "anchor", None) is not None:
            _refuse(path, f"{row} has a YAML anchor or alias; refer to other options with ${{option}}")
        if (tag := getattr(event, "tag", None)) is not None:
            _refuse(path, f"{row} has the YAML tag {_cut(str(tag))!r}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            _refuse(path, f"{row} is nested more than {_DEEPEST} deep")


def _check(path: Path, values: dict[Any, Any]) -> None:
    for item in _listed(path, values.get("defaults", [])):
        _check_default(path, item)
    if "hydra" in values:
        _check_hydra(path, values["hydra"])
    _check_plain(path, {key: value for key, value in values.items() if key != "defaults"}, "")


def _listed(path: Path, defaults: Any) -> list[Any]:
    return defaults if isinstance(defaults, list) else _refuse(path, "its defaults must be a list")


def _check_default(path: Path, item: Any) -> None:
    """Check one line of a defaults list: a file of this folder or of rankexp, at a place of rankexp's own."""
    shown = _cut(str(item))
    group, choice = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, None)
    found = _GROUP.fullmatch(group) if isinstance(group, str) else None
    if found is None or not _stays(found["group"]):
        _refuse(path, f"its default {shown!r} is no plain name of a file in this folder or of rankexp's own")
    _check_package(path, found["package"])
    choices = choice if isinstance(choice, list) else [] if choice is None else [choice]
    if any(not isinstance(one, str) or not _CHOICE.fullmatch(one) or ".." in one for one in choices):
        _refuse(path, f"its default {shown!r} names no plain file in this folder or of rankexp's own")
    allowed = {"hydra/launcher": LAUNCHERS, "hydra/job_logging": ("none",), "hydra/hydra_logging": ("none",)}
    if f"{found['group']}/".startswith("hydra/") and not (
        choices and set(choices) <= set(allowed.get(found["group"], ()))
    ):
        _refuse(path, f"its default {shown!r} can change what Hydra runs; of its groups only hydra/launcher may be set")


def _check_package(path: Path, package: str | None) -> None:
    """Check where in the configuration something is put."""
    if package is None:
        return
    parts = [part for part in package.split(".") if part not in ("_global_", "_group_", "_here_")]
    if any(part in ("hydra", "_name_", "") for part in parts) or (
        parts and package == ".".join(parts) and parts[0] not in _OPTIONS
    ):
        _refuse(path, f"package {_cut(package)!r} is no place of rankexp's own options")


def _check_hydra(path: Path, node: Any) -> None:
    for name, value in leaves(node, "hydra"):
        if not is_launcher_setting(name, value):
            _refuse(
                path,
                f"option {_cut(name)!r} is {_cut(repr(value))}; of Hydra's own it may set plain "
                f"values of hydra.launcher's {', '.join(sorted(_OF_JOBS))}, and numbers of hydra.launcher.ray",
            )


def is_launcher_setting(name: str, value: Any) -> bool:
    """Whether an option is a plain setting of a launcher, which runs nothing."""
    of_ray, of_jobs = name.removeprefix("hydra.launcher.ray."), name.removeprefix("hydra.launcher.")
    if of_ray != name:
        return of_ray in _OF_RAY and (value is None or isinstance(value, int | float))
    if of_jobs == name or of_jobs not in _OF_JOBS:
        return False
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and bool(_WORD.fullmatch(value)))


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Iterate over the values of nested options and their dotted names; an empty one is a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _check_plain(path: Path, value: Any, place: str) -> None:
    """Check that values are plain, and that references are to options alone."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str | int):
                _refuse(path, f"option {_cut(f'{place}{key}')!r} is no name")
            if "_target_" in str(key):
                _refuse(path, f"option {_cut(f'{place}{key}')!r} can name code to run")
            _check_plain(path, inner, f"{place}{key}.")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(path, inner, f"{place}{number}.")
    elif isinstance(value, str) and "${" in _REFERENCE.sub(_hydras, value):
        _refuse(path, f"option {_cut(place[:-1])!r} is {_cut(value)!r}; it may refer to options as ${{option}} alone")


def _hydras(reference: re.Match[str]) -> str:
    """Keep a reference to Hydra's own options, and take away one to others."""
    return reference[0] if re.search(r"\bhydra\b", reference[0]) else ""
