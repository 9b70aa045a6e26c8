"""Export a study's adapter: choose the trial, write it, read it back, compare, and describe it on a card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rankexp.analysis.study import Study, load_study
from rankexp.export.as_recorded import base_of, data_of
from rankexp.export.card import Told, card, configuration
from rankexp.export.chosen import choose_trial
from rankexp.export.measured import EXAMPLES, Said, said_by
from rankexp.export.merged import write_merged
from rankexp.export.peft import write_peft
from rankexp.export.serving import write_serving
from rankexp.export.target import Format, Target, Written
from rankexp.option_errors import ConfigError
from rankexp.record.trial import Trial
from rankexp.training.device import find_device

FORMATS: Mapping[Format, Callable[[Target], Written]] = {
    "peft": write_peft,
    "serving": write_serving,
    "merged": write_merged,
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        folder: Where it is.
        key: The trial's key.
        apart: The largest difference of a logit between the trial's own adapter and what was read back.
        before: Means of metrics on some examples of ``decide`` with the trial's own adapter.
        after: The same with what was read back.
        use: How to load it.
        language: Of these lines.
        notes: What else there is to know, a sentence each.
    """

    folder: Path
    key: str
    apart: float
    before: Mapping[str, float]
    after: Mapping[str, float]
    use: str
    language: str
    notes: tuple[str, ...]


def export(
    study: str | Path,
    format: Format,
    out: str | Path,
    *,
    trial: str | None = None,
    rank: int | None = None,
    say: Say = lambda _: None,
) -> Exported:
    """Write an adapter of a study for other tools, and check what was written before it is there.

    Args:
        study: The study's folder.
        format: ``peft``; ``serving``, one rank for servers that ignore patterns; or ``merged``, the model whole.
        out: A folder that is not there yet, or empty.
        trial: Key of the trial; else the best on ``tune`` of the rank.
        rank: The rank; else that of the verdict.
        say: Is told what is being done.

    Raises:
        ConfigError: There is no such trial, the format cannot hold it, the model or data are others by now, or what was
            written does not say what the trial's adapter says; nothing is kept then.
        RecordError: A file of the trial is not what was recorded.
    """
    folder = _empty(Path(out).absolute())
    if format not in get_args(Format):
        raise ConfigError(f"there is no format {format!r}; there is {', '.join(get_args(Format))}.")
    found, device = load_study(study), find_device("auto")
    chosen, why = choose_trial(found, trial, rank)
    base = base_of(found, device, say)
    data = data_of(found, base, say)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        target = Target(
            found.name, chosen.adapter, base, data, device, Path(made) / folder.name, found.config.model.revision
        )
        target.folder.mkdir()
        say(f"exporting trial {chosen.key}, {why}, as {format}")
        done = _written(target, found, chosen, Told(format, why), folder)
        if folder.exists():
            folder.rmdir()
        shutil.move(target.folder, folder)
    return done


def _written(target: Target, study: Study, trial: Trial, told: Told, folder: Path) -> Exported:
    """Write one format into the target's folder, compare what is read back, and describe it."""
    written = FORMATS[told.format](target)
    before = said_by(target.adapted(), target.base, target.data)
    after = said_by(written.read(), target.base, target.data)
    apart = _checked(written, before, after)
    use = written.use.replace(str(target.folder), str(folder))
    notes = (*written.notes, _measured(told.format))
    done = Exported(folder, trial.key, apart, before.scores, after.scores, use, written.language, notes)
    (target.folder / "README.md").write_text(card(study, trial, target, done, told), encoding="utf-8")
    (target.folder / "study.yaml").write_text(configuration(study), encoding="utf-8")
    return done


def _empty(folder: Path) -> Path:
    """Refuse a place where something is, which is never overwritten."""
    if folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"--out is {folder}, where something is already; name a folder that is not there yet.")
    return folder


def _checked(written: Written, before: Said, after: Said) -> float:
    apart, largest = after.apart(before), float(before.logits.abs().max())
    if not apart < float("inf"):
        raise ConfigError("what was exported gives logits that are no numbers, so nothing is kept; please report it.")
    if written.allowed is not None and apart > written.allowed * max(1.0, largest):
        raise ConfigError(f"what was exported gives logits {apart:.2g} off, so nothing is kept; please report it.")
    return apart


def _measured(format: str) -> str:
    kind = "merged model" if format == "merged" else "exported adapter"
    return f"The {kind} was compared with the trial's own adapter on at most {EXAMPLES} examples of decide."
