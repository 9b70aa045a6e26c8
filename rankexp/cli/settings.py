"""Words ``option=value`` behind a command that composes no configuration: the workspace, and what belongs to it."""

from __future__ import annotations

import os
import re
from pathlib import Path


def study_folder(name: str, rest: list[str], refusal: str = "", *, begun: bool = False) -> Path:
    """Find a study by what was typed; ``rest`` may say in which workspace, and ``refusal`` why nothing else.

    Args:
        name: As a person types it.
        rest: The other words.
        refusal: Why there may be no others than the workspace.
        begun: Whether a study will do that nobody has worked for yet.
    """
    from rankexp.study.find import find_study

    return find_study(name, workspace_of(rest, refusal), begun=begun)


def workspace_of(rest: list[str], refusal: str = "") -> Path:
    """Return the workspace that ``rest`` names, and refuse anything else in it but the storage that belongs to it."""
    given = {name: [word for word in rest if word.startswith(f"{name}=")] for name in ("workspace", "storage")}
    no_more([word for word in rest if word not in given["workspace"] + given["storage"]], refusal)
    workspace = Path(os.path.expanduser(_value_of(given["workspace"][-1])) if given["workspace"] else "runs")
    if given["storage"]:
        _name_storage(workspace, _value_of(given["storage"][-1]))
    return workspace


def _value_of(word: str) -> str:
    """Return the value of an option as ``sweep`` reads it: quotes around all of it are Hydra's."""
    from rankexp.cli.typed import refuse_control_characters

    option, _, value = word.partition("=")
    refuse_control_characters(option, value)
    inner = re.fullmatch(r"""(['"])(.*)\1""", value, re.DOTALL)
    return inner[2].replace(f"\\{inner[1]}", inner[1]) if inner else value


def _name_storage(workspace: Path, url: str) -> None:
    """Take the user's word for the database of a workspace that has one already."""
    from rankexp.option_errors import ConfigError
    from rankexp.study.coordination.database import Storage

    if Storage.kept(workspace).within(workspace):
        raise ConfigError(f"workspace {workspace} keeps its state in a file of its own; leave out storage=.")
    Storage.of(workspace, url)


def no_more(rest: list[str], refusal: str = "") -> None:
    """Refuse arguments that no command takes."""
    from rankexp.option_errors import ConfigError

    if rest:
        raise ConfigError(f"unknown argument {rest[0]!r}; {refusal or '`rankexp --help` lists what is accepted.'}")
