"""Arguments of the commands, and the pages of ``--help``.

A command is parsed with what it declares alone; the words behind that, overrides or settings, are its own business.
Those are described for its help page and for completion, by :func:`add_words` and :func:`add_pages`.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from rankexp import __version__
from rankexp.cli.command import Command, Section, commands

_ABOUT = "Which LoRA rank? Sweeps, paired statistics over seeds and examples, and a report that says how sure it is."
_EPILOG = """\
examples:
  rankexp sweep                                  ranks 4, 8, 16 and 32 on the packaged model and data
  rankexp sweep task=csv task.path=mine.csv      your own texts
  rankexp sweep model=local model.path=FOLDER    your own model
  rankexp sweep rank_alpha search.trials=40      Optuna over rank, alpha and learning rate
  rankexp sweep --cfg job                        print the configuration, run nothing
  rankexp train --multirun trial.rank=4,8        single trials
  rankexp sweep launcher=local workers=2         two processes, or one for each GPU
  rankexp resume rank_grid                       go on where it stopped
  rankexp report rank_grid                       write the report again
  rankexp report rank_grid rank_alpha            compare studies side by side
  rankexp decide scores.csv                      the same verdict on runs of your own trainer

`rankexp COMMAND --help` lists the options of a command.

exit codes: 0 done, 1 a defect of rankexp, 2 bad input, 3 a damaged record, 4 some trials failed,
5 input/output or a study held by another command, 130 and 143 interrupted (also by a closed terminal).
"""
_NARROWEST, _WIDEST = 80, 120
_LABEL, _LABEL_OF_COMMAND = 30, 14
"""Columns of a name; the sentence of a longer one begins on the next line."""


class _Parser(argparse.ArgumentParser):
    """Lists the commands in sections."""

    listed: Mapping[str, Command]

    def format_help(self) -> str:
        """Return the page of ``rankexp --help``."""
        parts = [self.format_usage(), f"\n{_ABOUT}\n"]
        for section in Section:
            rows = [(name, one.summary) for name, one in self.listed.items() if one.section is section]
            parts.append(f"\n{section.value}:\n{table(rows, _LABEL_OF_COMMAND)}\n")
        flags = [("-h, --help", "show this page"), ("--version", "show the version")]
        return "".join([*parts, f"\noptions:\n{table(flags, _LABEL_OF_COMMAND)}\n\n", _EPILOG])


class _Help(argparse.Action):
    """Prints the page of a command."""

    def __init__(self, option_strings: Sequence[str], command: Command, **_: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help="show this page")
        self.command = command

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.description = _description(self.command)
        add_words(parser, self.command)
        add_pages(parser, self.command)
        parser.print_help()
        parser.exit()


def parser(
    describe: Callable[[argparse.ArgumentParser, Command], object] | None = None, wanted: str = ""
) -> argparse.ArgumentParser:
    """Return what takes a command line apart; ``run`` of the result is what it asks for.

    Args:
        describe: Adds to the parser of each command what is not needed to run it.
        wanted: A word; where it is a command, no other is loaded.
    """
    top = _Parser(prog="rankexp", add_help=True)
    top.add_argument("--version", action="version", version=f"rankexp {__version__}")
    top.listed = commands(wanted)
    added = top.add_subparsers(metavar="COMMAND", parser_class=argparse.ArgumentParser)
    for name, command in top.listed.items():
        own = added.add_parser(
            name,
            help=command.summary,
            add_help=False,
            formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=width(), max_help_position=_LABEL),
        )
        own.add_argument("-h", "--help", action=_Help, command=command)
        command.arguments(own)
        own.set_defaults(run=command.run)
        if describe is not None:
            describe(own, command)
    return top


def add_words(parser: argparse.ArgumentParser, command: Command) -> argparse.Action | None:
    """Add what follows the arguments of a command, so that it is shown and completed.

    Returns:
        The argument that stands for overrides and settings; None where the command takes none.
    """
    command.flags(parser)
    if not (command.overrides or command.settings):
        return None
    metavar = "[NAME] option=value" if command.first() else "option=value"
    return parser.add_argument("words", nargs="*", metavar=metavar, help="as listed below")


def add_pages(parser: argparse.ArgumentParser, command: Command) -> None:
    """Add the options of the configuration that a command takes, under their headings."""
    from rankexp.cli.option_docs import option_groups, settings_group

    found = option_groups(command.overrides) if command.overrides else settings_group(command.settings)
    for group in found:
        rows = [(option.label, option.sentence) for option in group.options]
        parser.add_argument_group(group.heading, textwrap.dedent(table(rows)))


def table(rows: Iterable[tuple[str, str]], label: int = _LABEL) -> str:
    """Write names with their sentences in two columns."""
    indent = " " * (label + 2)
    lines = []
    for name, sentence in rows:
        wrapped = textwrap.wrap(sentence, width() - len(indent), break_on_hyphens=False) or [""]
        if len(name) + 2 > label:
            lines += [f"  {name}", *(f"{indent}{line}" for line in wrapped)]
        else:
            lines += [f"  {name:<{label}}{wrapped[0]}", *(f"{indent}{line}" for line in wrapped[1:])]
    return "\n".join(line.rstrip() for line in lines)


def width() -> int:
    """Columns of a page: those of the terminal, within what reads well."""
    return min(max(shutil.get_terminal_size().columns, _NARROWEST), _WIDEST) - 2


def _description(command: Command) -> str:
    sentence = f"{command.summary[0].upper()}{command.summary[1:]}."
    parts = [sentence, *command.notes().split("\n\n")]
    return "\n\n".join(part if "\n" in part else textwrap.fill(part, width()) for part in parts if part)
