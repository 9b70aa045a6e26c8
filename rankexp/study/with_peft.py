"""Adapters of a study in the hands of PEFT itself: do they give the recorded scores there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from rankexp.analysis.study import load_study
from rankexp.models.base import find_model
from rankexp.models.beside import also_training
from rankexp.models.kinds import kind_of_task
from rankexp.option_errors import ConfigError
from rankexp.tasks.base import make_task
from rankexp.training.device import find_device
from rankexp.training.readback import ReadBack, read_back


def read_with_peft(folder: Path, say: Callable[[str], None]) -> Iterator[ReadBack]:
    """Load each rank's first adapter with PEFT onto the base and score it on examples of ``decide``; trains nothing.

    Args:
        folder: A study's folder.
        say: Is told what is being read.

    Raises:
        ConfigError: PEFT is not installed, or model or data are not those of the study any more.
    """
    if find_spec("peft") is None:
        raise ConfigError("--peft needs PEFT, which is not installed; `pip install peft` installs it.")
    study = load_study(folder)
    kept = {**asdict(study.config.model), "dtype": study.record.model.get("dtype", "float32")}
    reads = kind_of_task(study.config.task).reads
    base = find_model(**kept, device=find_device("auto"), say=say, fetch=False, reads=reads)  # maybe somebody else's
    base = also_training(base, study.config.lora.modules_to_save, study.config.lora.trainable_token_indices)
    data = make_task(study.config.task).load(base.processor, say)
    for what, now, then in (
        ("model", base.fingerprint, study.record.model.get("found", study.record.model["fingerprint"])),
        ("data", data.fingerprint, study.record.data["fingerprint"]),
    ):
        if now != then:
            raise ConfigError(
                f"the {what} has changed since study {study.name} was run; --peft needs what it was run on."
            )
    first = [[t for t in study.chosen_trials(rank) if not t.cleaned][:1] for rank in study.ranks]
    if not any(first):
        raise ConfigError(f"study {study.name} has no adapter of its decision yet that PEFT could load.")
    for trial in (trial for trials in first for trial in trials):
        yield read_back(base, data, trial, find_device("auto"), _with_peft)


def _with_peft(model: nn.Module, adapter: Path) -> nn.Module:
    from peft import PeftModel

    loaded: nn.Module = PeftModel.from_pretrained(model, str(adapter))
    return loaded.eval()
