"""The command line: its commands and their arguments.

Everything heavy is imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rankexp import __version__
from rankexp.cli import reading, running
from rankexp.cli.guard import guarded
from rankexp.cli.output import BAD_INPUT, OK, complain
from rankexp.cli.streams import outlive_readers

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

exit codes: 0 done, 1 a defect of rankexp, 2 bad input, 3 a damaged record, 4 some trials failed,
5 input/output or a study held by another command, 130 and 143 interrupted (also by a closed terminal).
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.
    """
    if arguments is None:
        outlive_readers()
    given = list(sys.argv[1:] if arguments is None else arguments)
    for word in given:
        if not _is_text(word):
            complain(f"argument {word!r} is not UTF-8; rename the file, or give it through a link with another name.")
            return BAD_INPUT
    options, rest = _parser().parse_known_args(given)
    if not hasattr(options, "run"):
        _parser().print_help()
        return OK if not given else BAD_INPUT
    return guarded(lambda: int(options.run(options, rest)))


def _is_text(word: str) -> bool:
    try:
        return bool(word.encode()) or not word
    except UnicodeEncodeError:  # bytes of a name that stand for no character
        return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rankexp",
        description="Which LoRA rank? Sweeps, paired statistics over seeds and examples, and a report that says how "
        "sure it is.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"rankexp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: object, text: str, **arguments: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text, add_help=name not in {"sweep", "train"})
        for argument, meaning in arguments.items():
            added.add_argument(argument, help=meaning)
        added.set_defaults(run=run)
        return added

    command("sweep", running.sweep, "run a study to its verdict and report, or go on with it: sweep [NAME] [overrides]")
    command("train", running.train, "train single trials: train [--multirun] [overrides]")
    command(
        "resume",
        running.resume,
        "go on with a study as it was begun; damaged trials are trained anew",
        study="name of a study, or its folder",
    )
    command(
        "worker",
        running.worker,
        "work for a study beside others until it has ended: worker STUDY [device=… jobs=… threads=… pack=…]",
        study="name of a study, or its folder",
    )
    reported = command("report", reading.report, "write the report of a study again, or compare several")
    reported.add_argument("studies", nargs="+", metavar="study", help="name of a study, or its folder")
    reported.add_argument("--out", type=Path, help="folder of a comparison (default comparisons/ in the workspace)")
    decided = command(
        "decide",
        reading.decide,
        "verdict and report on scores of your own trainer",
        file="CSV file with columns rank, seed, example, score; a higher score is better",
    )
    decided.add_argument(
        "--margin",
        help="loss of score that does not matter: 2pt or 0.02 if scores are 0/1 (default 1pt), 0.01nat for losses, "
        "else a number in their unit",
    )
    decided.add_argument("--loss", action="store_true", help="scores are losses: lower is better")
    decided.add_argument("--level", type=float, default=0.05, help="one-sided significance level (default 0.05)")
    decided.add_argument("--unstable", type=int, nargs="+", default=[], metavar="RANK", help="ranks that diverged")
    decided.add_argument("--out", type=Path, help="folder of the report (default FILE-report)")
    powered = command(
        "power", reading.power, "say what more seeds or examples would give", study="name of a study, or its folder"
    )
    powered.add_argument("--target", type=float, default=0.8, help="power aimed at (default 0.8)")
    command("status", reading.status, "say how far a study is", study="name of a study, or its folder")
    verified = command(
        "verify",
        reading.verify,
        "check every file of a study against its hash, and every trial for one valid result",
        study="name of a study, or its folder",
    )
    verified.add_argument(
        "--peft", action="store_true", help="also load the first adapter of each rank with PEFT and compare its scores"
    )
    cleaned = command(
        "clean",
        reading.clean,
        "list what may go from a workspace: checkpoints of trials that have ended, and adapters of ranks not chosen",
    )
    cleaned.add_argument("--delete", action="store_true", help="delete it; the record stays valid, and says what went")
    command(
        "sync",
        reading.sync,
        "bring a study's runs into MLflow: sync STUDY [tracking.uri=URL]",
        study="name of a study, or its folder",
    )
    ui = command("ui", reading.ui, "open MLflow's pages of a workspace")
    ui.add_argument("--port", type=int, default=5000, help="port on this machine (default 5000)")
    ui.add_argument("--no-browser", action="store_true", help="print the address only")
    command("assets", reading.assets, "fetch the packaged model and data into the cache")
    return parser
