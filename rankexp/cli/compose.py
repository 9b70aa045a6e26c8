"""Configurations composed by Hydra; with the rest of this package the only place that knows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rankexp.cli.resources import resource as resource
from rankexp.cli.resources import sweep_names as sweep_names
from rankexp.cli.typed import Typed, quoted, read_typed
from rankexp.config import StudyConfig
from rankexp.config.search import whose
from rankexp.option_errors import ConfigError, near_miss
from rankexp.options import parse
from rankexp.safety.children import isolated
from rankexp.safety.printable import printable

if TYPE_CHECKING:
    from omegaconf import DictConfig

_MOST_REFERENCES = 30
"""More than this many can refer to each other so that what they stand for fills the memory."""
_HYDRAS_OWN = ("hydra.runtime.", "hydra.overrides.", "hydra.job.override_dirname", "hydra.job.config_name")
"""What Hydra notes by itself of a composition."""


def run_with_hydra(name: str, arguments: Sequence[str], job: Callable[[StudyConfig], None]) -> None:
    """Let Hydra compose a configuration from its own flags and overrides, and give it to ``job``.

    Args:
        name: Name of the primary configuration: a sweep, or ``config``.
        arguments: Overrides and Hydra's flags, such as ``--cfg job`` or ``--multirun``.
        job: Is called once for each composed configuration.

    Raises:
        ConfigError: An override or a value is wrong; one sentence.
    """
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    raised: list[Exception] = []

    def watched_job(composed: DictConfig) -> None:
        if raised:
            return
        try:
            job(checked(composed))
        except MissingMandatoryValue as error:
            raised.append(ConfigError(f"option {error.full_key!r} is missing; give it with {error.full_key}=…"))
        except (OmegaConfBaseException, RecursionError) as error:
            option = getattr(error, "full_key", None)
            raised.append(ConfigError(_first_sentence(f"option {option!r}: {error}" if option else str(error))))
        except Exception as error:  # Hydra would print a line of its own before raising it again
            raised.append(error)

    launch_with_hydra(name, arguments, watched_job)
    if raised:
        raise raised[0]


def launch_with_hydra(name: str, arguments: Sequence[str], task: Callable[[DictConfig], object]) -> None:
    """Let Hydra compose a configuration and run a task with it, or with a launcher several.

    Args:
        name: As in :func:`run_with_hydra`.
        arguments: As in :func:`run_with_hydra`.
        task: Is given each composed configuration; a launcher may import it elsewhere by its name.

    Raises:
        ConfigError: As in :func:`run_with_hydra`.
    """
    import hydra

    from rankexp.cli.config_dir import searching

    typed = read_typed(arguments)
    if os.path.isabs(name) or ".." in name.split("/") or "://" in name:
        raise ConfigError(f"{printable(name)!r} is a place, not a sweep; give its folder with --config-dir.")
    with _in_one_sentence(name, typed):
        if typed.folder is not None:
            _check_folder(name, typed, typed.folder)
        with searching(typed.folder), _leaving_no_notes(typed) as words, _as_program(words), isolated():
            hydra.main(version_base="1.3", config_path=str(resource("conf")), config_name=name)(task)()


def launcher_options(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what a multirun would tell Hydra's launcher.

    Raises:
        ConfigError: As in :func:`run_with_hydra`.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    typed = read_typed(arguments)
    overrides = [word for word in typed.overrides if not word.startswith("launcher.worker=")]
    with _in_one_sentence(name, typed):
        composed = _composed(name, overrides, typed.folder)
        HydraConfig.instance().set_config(composed)
        options = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    assert isinstance(options, dict)
    return {str(option): value for option, value in options.items()}


def _composed(name: str, overrides: Sequence[str], folder: Path | None) -> DictConfig:
    """Compose a configuration with Hydra's own part, and do nothing with it."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from rankexp.cli.config_dir import searching

    with searching(folder), initialize_config_dir(str(resource("conf")), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        return loader.load_configuration(
            name, list(overrides), RunMode.MULTIRUN, from_shell=False, validate_sweep_overrides=False
        )


def _check_folder(name: str, typed: Typed, folder: Path) -> None:
    """Check what comes of the files of a folder, before Hydra acts on it.

    Hydra's own part must be what rankexp and the command line make it, but for plain settings of a launcher; and where
    something is written or sent is said by whoever types the command.

    Raises:
        ConfigError: It is not so.
    """
    from omegaconf import OmegaConf

    from rankexp.cli.config_dir import LAUNCHERS, is_launcher_setting, leaves

    composed = _composed(name, typed.overrides, folder)
    launcher = composed.hydra.runtime.choices["hydra/launcher"]
    of_hydra = [word for word in typed.overrides if word.lstrip("+~").startswith("hydra.")]
    choices = [word for word in typed.overrides if word.startswith("hydra/") and not word.startswith("hydra/launcher=")]
    if launcher not in LAUNCHERS and f"hydra/launcher={launcher}" not in typed.overrides:
        raise ConfigError(f"folder {printable(str(folder))} is refused: it chooses the launcher {launcher!r}.")
    plain = _composed("config", [f"hydra/launcher={launcher}", *choices, *of_hydra], None)
    found, expected = (dict(leaves(OmegaConf.to_container(one.hydra), "hydra")) for one in (composed, plain))
    for option in found.keys() | expected.keys():
        if option.startswith(_HYDRAS_OWN) or found.get(option) == expected.get(option):
            continue
        if expected.get(option) == {} and option not in found:  # its settings are further options
            continue
        if not is_launcher_setting(option, found.get(option)):
            raise ConfigError(
                f"folder {printable(str(folder))} is refused: it changes option {printable(option)!r}, on which "
                "Hydra acts; the defaults of a sweep begin with `- config` and leave Hydra's own options alone."
            )
    _check_places(composed, typed, folder)


def _check_places(composed: DictConfig, typed: Typed, folder: Path) -> None:
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(composed)
    if str(values).count("${") > _MOST_REFERENCES + str(OmegaConf.to_container(composed.hydra)).count("${"):
        raise ConfigError(
            f"folder {printable(str(folder))} is refused: it has more than {_MOST_REFERENCES} references."
        )
    for option in {"storage", "tracking.uri"} - typed.options():
        if OmegaConf.select(composed, option) is not None:
            raise ConfigError(f"folder {printable(str(folder))} names a {option}; type {option}=… yourself to use it.")
    workspace = str(OmegaConf.select(composed, "workspace"))
    if "workspace" not in typed.options() and not _is_below(workspace, Path.cwd()):
        raise ConfigError(
            f"folder {printable(str(folder))} names the workspace {printable(workspace)!r}, which is not below the "
            "current folder; type workspace=… yourself to use it."
        )


def _is_below(path: str, folder: Path) -> bool:
    try:
        real = os.path.realpath(os.path.expanduser(path))
    except ValueError:  # half of a character, or a null: no path of any folder
        return False
    return os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder)


@contextmanager
def _in_one_sentence(name: str, typed: Typed) -> Iterator[None]:
    """Turn what Hydra raises into one sentence."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(str(error) or str(error.__cause__), name, typed)) from None
    except RecursionError:
        raise ConfigError(f"the configuration of {name} refers to itself, or is nested too deep.") from None


def checked(composed: DictConfig) -> StudyConfig:
    """Turn what Hydra composed into a configuration.

    Raises:
        ConfigError: A value is wrong, or names code to run.
    """
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    _refuse_targets(values)
    return parse(StudyConfig, values)


@contextmanager
def _leaving_no_notes(typed: Typed) -> Iterator[list[str]]:
    """Give the words for Hydra, of which a multirun here writes its notes into a folder that is then deleted.

    Hydra writes ``multirun.yaml`` where ``hydra.sweep.dir`` says, by default the current folder. A launcher whose jobs
    run elsewhere has other files there, which stay.
    """
    words = [*typed.flags, *typed.overrides]
    elsewhere = typed.options() & {"hydra.sweep.dir", "hydra/launcher"} or {"launcher=slurm", "launcher=ray"} & {*words}
    if "--multirun" not in typed.flags or elsewhere:
        yield words
        return
    with TemporaryDirectory(prefix="rankexp-") as folder:
        yield [*words, f"hydra.sweep.dir={quoted(folder)}"]


@contextmanager
def _as_program(words: Sequence[str]) -> Iterator[None]:
    """Show Hydra our arguments, and have it raise instead of printing and leaving."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["rankexp", *words], "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def _refuse_targets(value: Any, place: str = "") -> None:
    """Refuse ``_target_`` anywhere: nothing in a configuration is ever called."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "_target_":
                raise ConfigError(f"option '{place}_target_' is refused: a configuration cannot name code to run.")
            _refuse_targets(inner, f"{place}{key}.")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_targets(inner, f"{place}{i}.")


def _sentence(message: str, name: str, typed: Typed) -> str:
    """Turn what Hydra says into one sentence, with the near miss."""
    if match := re.search(r"Could not override '(contest\.contenders\.[^']+)'", message):
        return f"there is no contender for {match[1]!r}; write '+{match[1]}=…' to add one."
    if match := re.search(r"Could not override '([^']+)'", message):
        if match[1].startswith("search.") and (sentence := whose(match[1].removeprefix("search."))):
            return sentence
        return f"unknown option {match[1]!r}{near_miss(match[1], known_options(name, typed))}"
    if match := re.search(r"Could not find 'hydra/launcher/(submitit\w*|ray)'", message):
        extra = "ray" if match[1] == "ray" else "slurm"
        return f"launcher={extra} needs `pip install 'rankexp[{extra}]'`."
    if match := re.search(r"Could not find '([^']+)/([^/']+)'", message):
        known = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
        return f"there is no {match[2]!r} in group {match[1]!r}; there is {', '.join(known)}."
    if match := re.search(
        r"Could not append to config|not find a match for '([^']+)'|Key '(\S+)' is not in struct", message
    ):
        wrong = next((group for group in match.groups() if group), "")
        return f"unknown option {wrong!r}{near_miss(wrong, known_options(name, typed))}"
    if match := re.search(r"raised while composing config:\n(.*)(?:\n *full_key: (.+))?", message):
        return _first_sentence(f"option {match[2]!r} of {name}: {match[1]}" if match[2] else f"in {name}: {match[1]}")
    return _first_sentence(message)


def _first_sentence(message: str) -> str:
    return printable(" ".join(message.split("\n")[0].split()).rstrip(".")[:500]) + "."


def known_options(name: str, typed: Typed) -> list[str]:
    """List the options of a configuration, or of the plain one where it cannot be composed, with typed choices."""
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    groups = {folder.name for folder in resource("conf").iterdir() if folder.is_dir()}
    choices = [word for word in typed.overrides if word.partition("=")[0] in groups]
    try:
        composed = _composed(name, choices, typed.folder)
    except HydraException:  # it is this configuration that is wrong
        composed = _composed("config", [], None)
    values = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(values, dict)
    values.pop("hydra")

    def walk(value: Any, prefix: str) -> list[str]:
        inner = (
            [n for key, item in value.items() for n in walk(item, f"{prefix}.{key}")] if isinstance(value, dict) else []
        )
        return [prefix[1:], *inner] if prefix else inner

    return walk(values, "")
