"""What a shell offers when the tab key is pressed: commands, studies, sweeps, options and their values.

argcomplete speaks with the shell. What is offered comes from rankexp itself and from the names of files and folders;
no file of a workspace is opened, and names that a shell or a terminal might act on are left out.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.arguments import add_words, parser
from rankexp.cli.command import Command

if TYPE_CHECKING:
    from rankexp.cli.option_docs import Option

_PLAIN = re.compile(r"[\w.(][\w .,()=+@%-]{0,254}")
"""Names in which nothing stands that a shell expands; blanks and brackets are quoted for it."""
_STUDY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,119}")
_HASH = re.compile(r"-[0-9a-f]{8}$")
_MOST = 1000
"""Names of a folder that are looked at."""
_PATHS = ("workspace", "task.path", "model.path", "model.tokenizer")
"""Options whose values are paths."""
Offered = Sequence[str] | Mapping[str, str]


def complete() -> None:
    """Answer the shell that asks, and end the process."""
    from argcomplete.completers import SuppressCompleter
    from argcomplete.finders import CompletionFinder

    finder = CompletionFinder()
    finder(parser(_described), always_complete_options=False, default_completer=SuppressCompleter())


def shell_code(shell: str) -> str:
    """Return what a shell runs to complete the words of ``rankexp``.

    It asks the command that it knows, and not the one that is typed, since a stranger's folder may hold a ``rankexp``
    of its own.
    """
    from argcomplete.shell_integration import shellcode

    return shellcode(["rankexp"], shell=shell, argcomplete_script=_own_command())


def _own_command() -> str:
    """Return how a shell finds this command: on its path, else where it lies."""
    return "rankexp" if shutil.which("rankexp") else os.path.abspath(sys.argv[0])


def studies(workspace: Path, prefix: str) -> list[str]:
    """List the studies of a workspace by the shortest name that says which."""
    folder = workspace / "studies"
    found = [name for name in _names(folder) if _STUDY.fullmatch(name) and _is_study(folder / name)]
    short = [_HASH.sub("", name) for name in found]
    shortest = [base if short.count(base) == 1 else name for name, base in zip(found, short, strict=True)]
    return [name for name in shortest if name.startswith(prefix)] or [name for name in found if name.startswith(prefix)]


def option_words(command: Command, prefix: str, before: Sequence[str] = ()) -> dict[str, str]:
    """Return the words that may follow the arguments of a command, each with a sentence for shells that show one.

    Args:
        command: The command.
        prefix: What is typed of the word so far.
        before: The words before it.
    """
    name, equals, value = prefix.partition("=")
    if name in _PATHS and equals:
        return dict.fromkeys((f"{name}={path}" for path in paths(value)), "")
    options = _options(command)
    if equals:
        known = options[name].values if name in options else ()
        return {f"{name}={one}": "" for one in known if one.startswith(value)}
    first = {} if before else command.first()
    words = {**first, **{f"{name}=": option.sentence for name, option in options.items()}}
    return {word: sentence for word, sentence in words.items() if word.startswith(prefix)}


def paths(prefix: str) -> list[str]:
    """List the files and folders that begin so."""
    folder, slash, start = prefix.rpartition("/")
    place = Path(os.path.expanduser(folder + slash) or ".")
    found = [name for name in _names(place) if name.startswith(start) and (start or not name.startswith("."))]
    return [f"{folder}{slash}{name}{'/' * (place / name).is_dir()}" for name in found]


def _names(folder: Path) -> list[str]:
    """List the plain names in a folder, sorted; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, _MOST) if _PLAIN.fullmatch(entry.name))
    except OSError:
        return []


def _is_study(folder: Path) -> bool:
    return any(os.path.lexists(folder / name) for name in ("study.json", "begun.json"))


def _options(command: Command) -> dict[str, Option]:
    """Return the options of a command by name."""
    from rankexp.cli.option_docs import option_groups, settings_group

    found = option_groups(command.overrides) if command.overrides else settings_group(command.settings)
    return {option.name: option for group in found for option in group.options}


def _described(added: argparse.ArgumentParser, command: Command) -> None:
    """Say of each argument of a command how it is completed."""
    words = add_words(added, command)
    for action in added._actions:
        action.completer = _completer(action, command, words)  # type: ignore[attr-defined]


def _completer(action: argparse.Action, command: Command, words: argparse.Action | None) -> Callable[..., Offered]:
    if action is words:
        return partial(_complete_word, command)
    if action.dest in ("study", "studies"):
        return partial(_complete_study, command)
    if action.choices is not None:
        return partial(_complete_choice, tuple(map(str, action.choices)))
    if action.type is Path or action.dest == "file" or action.metavar == "FOLDER":
        return lambda prefix, **_: paths(prefix)
    return _nothing


def _complete_word(command: Command, prefix: str, parsed_args: argparse.Namespace, **_: object) -> Offered:
    return option_words(command, prefix, getattr(parsed_args, "words", None) or ())


def _complete_study(command: Command, prefix: str, **_: object) -> Offered:
    if "=" in prefix:
        return option_words(command, prefix)
    return studies(Path(next(_typed_workspaces(), "runs")), prefix)


def _complete_choice(choices: Offered, prefix: str, **_: object) -> Offered:
    return [one for one in choices if one.startswith(prefix)]


def _typed_workspaces() -> Iterator[str]:
    """Iterate over the workspaces named before the cursor, the last first."""
    typed = os.environ.get("COMP_LINE", "").encode()[: int(os.environ.get("COMP_POINT", "0"))].decode(errors="ignore")
    for found in reversed(re.findall(r"(?<=\sworkspace=)[\w.,=+@%~/-]+(?=\s)", typed)):
        yield os.path.expanduser(found)


def _nothing(**_: object) -> Offered:
    """Offer nothing; argcomplete would start a shell to list files."""
    return ()
