"""``rankexp worker``: one more process for a study."""

from __future__ import annotations

import argparse
import json

from rankexp.cli.command import Command, Section, study_argument
from rankexp.cli.output import OK
from rankexp.cli.settings import study_folder


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Work for a study beside other processes."""
    from rankexp.config import OF_WORKER
    from rankexp.option_errors import ConfigError, near_miss
    from rankexp.progress import Display
    from rankexp.study.session import help_study

    own = [word for word in rest if not word.startswith(("workspace=", "storage="))]
    changes = dict(word.split("=", 1) for word in own if "=" in word)
    for word in own:
        if (name := word.split("=", 1)[0]) not in OF_WORKER or "=" not in word:
            raise ConfigError(f"worker takes no {name!r}{near_miss(name, OF_WORKER)}")
    values = {name: _value(text) for name, text in changes.items()}
    folder = study_folder(options.study, [word for word in rest if word not in own], begun=True)
    with Display() as display:
        help_study(folder, display, values)
    return OK


def _value(text: str) -> object:
    """Read a number if it is one."""
    try:
        return json.loads(text)
    except ValueError:
        return text


COMMAND = Command(
    Section.TRAIN,
    "work for a study beside others until it has ended",
    run,
    study_argument,
    settings=(
        *("workspace", "storage", "device", "jobs", "threads", "pack", "attention", "gradient_checkpointing"),
        *("checkpoint_every", "lease_seconds"),
    ),
    place=4,
)
