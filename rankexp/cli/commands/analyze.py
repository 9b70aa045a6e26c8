"""``rankexp analyze``: how many of its directions an adapter uses, whoever trained it."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rankexp.cli.command import Command, Section, hydra_flags
from rankexp.cli.output import OK, say, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankexp.analysis.cut_losses import CutLoss
    from rankexp.analysis.updates.adapter_folder import AdapterFolder
    from rankexp.config import StudyConfig
    from rankexp.metrics import Metric
    from rankexp.record.scores import Scores

    Say = Callable[[str], None]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("adapter", type=Path, help="folder of a LoRA adapter in PEFT's format")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the page")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--rank", type=int, help="also write the adapter cut to this rank, into FOLDER/squeezed")
    how.add_argument(
        "--energy", type=float, metavar="SHARE", help="cut to what holds this share of each layer's energy"
    )
    how.add_argument("--parameters", type=int, help="cut within so many parameters, dealt to the layers by energy")


def run(options: argparse.Namespace, rest: list[str]) -> int:
    """Examine an adapter, measure what cuts cost where data are given, and write a cut one where it is asked for."""
    from rankexp.analysis.updates.adapter_folder import read_adapter
    from rankexp.report.adapter_page import describe, write_adapter_page

    _check(options)
    adapter = read_adapter(options.adapter)
    doc = _measured(adapter, rest) if rest else describe(adapter)
    if doc is None:  # Hydra has shown something else instead
        return OK
    page = write_adapter_page(doc, options.out)
    say(f"{doc['headline']} {doc['lead']}")
    _write_squeezed(options, adapter)
    say(f"\npage      {shown(page)}")
    return OK


def _check(options: argparse.Namespace) -> None:
    from rankexp.option_errors import ConfigError

    if options.rank is not None and options.rank < 1:
        raise ConfigError(f"--rank is {options.rank}; it must be 1 or more.")
    if options.energy is not None and not 0 < options.energy <= 1:
        raise ConfigError(f"--energy is {options.energy:g}; it is a share, above 0 and at most 1.")
    if options.parameters is not None and options.parameters < 1:
        raise ConfigError(f"--parameters is {options.parameters}; it must be 1 or more.")


def _write_squeezed(options: argparse.Namespace, adapter: AdapterFolder) -> None:
    from rankexp.analysis.updates.squeezed_folder import write_squeezed
    from rankexp.analysis.updates.used_ranks import ranks_for
    from rankexp.option_errors import ConfigError

    asked = (options.rank, options.energy, options.parameters)
    if all(one is None for one in asked):
        return
    ranks = ranks_for(adapter.layers, rank=options.rank, share=options.energy, parameters=options.parameters)
    folder = options.out / "squeezed"
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is there already, and is not written over; name another --out.")
    write_squeezed(adapter, ranks, folder)
    used = sorted(set(ranks.values()))
    span = f"rank {used[0]}" if len(used) == 1 else f"ranks {used[0]} to {used[-1]}"
    parameters = sum(rank * sum(adapter.layers[name].shape) for name, rank in ranks.items())
    layers = f"{len(ranks):,} of {len(adapter.layers):,} layers"
    say(f"\nsqueezed  {shown(folder)}: {span}, {parameters:,} parameters in {layers}")


def _measured(adapter: AdapterFolder, rest: list[str]) -> dict[str, object] | None:
    from rankexp.cli.compose import run_with_hydra
    from rankexp.option_errors import ConfigError

    if {"-m", "--multirun"} & set(rest):
        raise ConfigError("analyze takes one model and one task, and no --multirun.")
    found: list[dict[str, object]] = []
    run_with_hydra("config", ["study=analyze", *rest], lambda config: found.append(_measure(adapter, config)))
    return found[0] if found else None


def _measure(adapter: AdapterFolder, config: StudyConfig) -> dict[str, object]:
    from rankexp.analysis.cut_losses import cut_losses
    from rankexp.progress import Display
    from rankexp.report.adapter_page import describe

    with Display() as display:
        scores, metrics, about = _scores(adapter, config, display.say)
    whole = scores[-1]
    losses: dict[int, tuple[CutLoss, ...]] = {rank: cut_losses(whole, found, metrics) for rank, found in scores.items()}
    used = {loss.metric for of in losses.values() for loss in of}
    return describe(adapter, losses, tuple(metric for metric in metrics if metric.name in used), about)


def _scores(adapter: AdapterFolder, config: StudyConfig, say_so: Say) -> tuple[dict[int, Scores], list[Metric], str]:
    """Score the adapter whole and cut, on all data of a task."""
    from rankexp.export.examined import examined

    return examined(adapter, asdict(config.model), config.task, config.device, say_so)


COMMAND = Command(
    Section.READ,
    "how many of its directions an adapter uses, whoever trained it, and what a cut would cost",
    run,
    arguments,
    overrides=("device", "attention", "model", "task"),
    flags=hydra_flags,
    notes=lambda: (
        "Without more, the files are all that is read. With the base model and data, model=local model.path=FOLDER "
        "task=csv task.path=FILE, the loss of each cut is measured on all of them; give data that the adapter has not "
        "seen."
    ),
    place=7,
)
