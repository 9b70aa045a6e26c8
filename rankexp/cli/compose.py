"""Configurations composed by Hydra; with the rest of this package the only place that knows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankexp.config import StudyConfig
from rankexp.options import ConfigError, near_miss, parse

if TYPE_CHECKING:
    from omegaconf import DictConfig

_CODE = re.compile(r"_target_|oc\.decode|oc\.create|searchpath")
"""What names code to run, can make it up, or fetches it from elsewhere."""
_ROOT = Path(__file__).resolve().parents[1]


def resource(name: str) -> Path:
    """Return the folder ``conf`` or ``sweeps``: inside an installed package, beside it in a source tree."""
    inside = _ROOT / name
    return inside if inside.is_dir() else _ROOT.parent / name


def sweep_names() -> list[str]:
    """Names of the sweeps that come with rankexp."""
    return sorted(path.stem for path in resource("sweeps").glob("*.yaml"))


def run_with_hydra(name: str, arguments: Sequence[str], job: Callable[[StudyConfig], None]) -> None:
    """Let Hydra compose a configuration from its own flags and overrides, and give it to ``job``.

    Args:
        name: Name of the primary configuration: a sweep, or ``config``.
        arguments: Overrides and Hydra's flags, such as ``--cfg job`` or ``--multirun``.
        job: Is called once for each composed configuration.

    Raises:
        ConfigError: An override or a value is wrong; one sentence.
    """
    from omegaconf.errors import MissingMandatoryValue

    raised: list[Exception] = []

    def watched_job(composed: DictConfig) -> None:
        if raised:
            return
        try:
            job(checked(composed))
        except MissingMandatoryValue as error:
            raised.append(ConfigError(f"option {error.full_key!r} is missing; give it with {error.full_key}=…"))
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
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    _refuse_code(arguments)
    _register_search_path()
    with _as_program(arguments):
        try:
            hydra.main(version_base="1.3", config_path=str(resource("conf")), config_name=name)(task)()
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_sentence(str(error), name, arguments)) from None


def launcher_options(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return what a multirun would tell Hydra's launcher.

    Raises:
        ConfigError: As in :func:`run_with_hydra`.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    _register_search_path()
    overrides = [word for word in arguments if "=" in word and not word.startswith("launcher.worker=")]
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        composed = compose(name, overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        options = OmegaConf.to_container(composed.hydra.launcher, resolve=True)
    assert isinstance(options, dict)
    return {str(option): value for option, value in options.items()}


def checked(composed: DictConfig) -> StudyConfig:
    """Turn what Hydra composed into a configuration.

    Raises:
        ConfigError: A value is wrong, or names code to run.
    """
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    _refuse_targets(values)
    return parse(StudyConfig, values)


def _register_search_path() -> None:
    """Add ``sweeps`` to where Hydra looks, in this process alone."""
    from hydra.core.config_search_path import ConfigSearchPath
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class RankexpSearchPath(SearchPathPlugin):
        """Where the sweeps are."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            """Add the folder of sweeps."""
            search_path.append("rankexp", f"file://{resource('sweeps')}")

    if not any(
        plugin.__name__ == RankexpSearchPath.__name__ for plugin in Plugins.instance().discover(SearchPathPlugin)
    ):
        Plugins.instance().register(RankexpSearchPath)


@contextmanager
def _as_program(arguments: Sequence[str]) -> Iterator[None]:
    """Show Hydra our arguments, and have it raise instead of printing and leaving."""
    before, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["rankexp", *_in_order(arguments)], "1"
    try:
        yield
    finally:
        sys.argv = before
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def _in_order(arguments: Sequence[str]) -> list[str]:
    """Put flags before overrides, which Hydra wants together, and drop ``--multirun`` beside ``--cfg``.

    >>> _in_order(["a=1", "--cfg", "job", "-m", "b=2"])
    ['--cfg', 'job', 'a=1', 'b=2']
    """
    overrides = [word for word in arguments if "=" in word and not word.startswith("-")]
    flags = [word for word in arguments if word not in overrides]
    if {"--cfg", "-c"} & set(flags):
        flags = [word for word in flags if word not in {"--multirun", "-m"}]
    return flags + overrides


def _refuse_code(arguments: Sequence[str]) -> None:
    """Refuse what names code to run in what a user gives to Hydra, which would call some of it before we see it.

    Raises:
        ConfigError: It is in an override, a file, or a flag that reads more than we can look through.
    """
    from hydra._internal.utils import get_args_parser

    flags = get_args_parser().parse_args(_in_order(arguments))
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(flags, flag) is not None:
            raise ConfigError(f"flag --{flag.replace('_', '-')} is refused; give a folder with --config-dir.")
    for word in flags.overrides:
        if _names_code(word):
            option = word.partition("=")[0].lstrip("+~")
            raise ConfigError(f"option {option!r} is refused: it can name code to run ({_names_code(word)}).")
    for path in _configurations(Path(flags.config_dir)) if flags.config_dir else ():
        for text in _texts(path):
            if found := _names_code(text):
                raise ConfigError(f"file {path} is refused: it can name code to run ({found}).")


def _configurations(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (Path(place) / name for name in sorted(names) if name.endswith(".yaml"))


def _texts(path: Path) -> Iterator[str]:
    """Iterate over a file's own text and every key and value in it, as YAML's escapes write them."""
    from yaml import SafeLoader, YAMLError, scan
    from yaml.tokens import ScalarToken

    text = path.read_text(encoding="utf-8", errors="replace")
    yield text
    with suppress(YAMLError):  # which Hydra will say
        yield from (token.value for token in scan(text, SafeLoader) if isinstance(token, ScalarToken))


def _names_code(text: str) -> str | None:
    """Return what in a text may make Hydra call something, also with the escapes of Hydra's own grammar."""
    found = _CODE.search(text.replace("\\", ""))
    return found[0] if found else None


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


def _sentence(message: str, name: str, arguments: Sequence[str]) -> str:
    """Turn what Hydra says into one sentence, with the near miss."""
    if match := re.search(r"Could not override '(contest\.contenders\.[^']+)'", message):
        return f"there is no contender for {match[1]!r}; write '+{match[1]}=…' to add one."
    if match := re.search(r"Could not override '([^']+)'", message):
        return f"unknown option {match[1]!r}{near_miss(match[1], known_options(name, arguments))}"
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
        return f"unknown option {wrong!r}{near_miss(wrong, known_options(name, arguments))}"
    return " ".join(message.split("\n")[0].split()).rstrip(".") + "."


def known_options(name: str, arguments: Sequence[str]) -> list[str]:
    """Dotted names of all options of a configuration, with the choices of groups that ``arguments`` make."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    _register_search_path()
    groups = {folder.name for folder in resource("conf").iterdir() if folder.is_dir()}
    choices = [word for word in arguments if word.partition("=")[0] in groups]
    with initialize_config_dir(str(resource("conf")), version_base="1.3"):
        values = OmegaConf.to_container(compose(name, choices), resolve=False)

    def walk(value: Any, prefix: str) -> list[str]:
        inner = (
            [n for key, item in value.items() for n in walk(item, f"{prefix}.{key}")] if isinstance(value, dict) else []
        )
        return [prefix[1:], *inner] if prefix else inner

    return walk(values, "")
