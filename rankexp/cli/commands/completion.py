"""``rankexp completion``: what a shell runs so that the tab key completes rankexp's words."""

from __future__ import annotations

import argparse

from rankexp.cli.command import Command, Section
from rankexp.cli.output import OK
from rankexp.cli.settings import no_more


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell that it is for")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Print it."""
    from rankexp.cli.completion import shell_code

    no_more(rest)
    print(shell_code(options.shell), end="")
    return OK


def _notes() -> str:
    return (
        "Add one line to what your shell reads when it starts:\n\n"
        '  bash, ~/.bashrc:  eval "$(rankexp completion bash)"\n'
        '  zsh, ~/.zshrc:    eval "$(rankexp completion zsh)"   (after compinit)\n'
        "  fish:             rankexp completion fish > ~/.config/fish/completions/rankexp.fish"
    )


COMMAND = Command(
    Section.SET_UP,
    "complete commands, studies, sweeps and options with the tab key, in bash, zsh and fish",
    run,
    arguments,
    settings=(),
    notes=_notes,
    place=3,
)
