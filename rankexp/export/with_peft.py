"""Adapters of a study in the hands of PEFT itself: do they give the recorded scores there?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

from torch import nn

from rankexp.analysis.study import load_study
from rankexp.export.as_recorded import base_of, data_of
from rankexp.option_errors import ConfigError
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
    study, device = load_study(folder), find_device("auto")
    base = base_of(study, device, say)
    data = data_of(study, base, say)
    first = [[t for t in study.chosen_trials(rank) if not t.cleaned][:1] for rank in study.ranks]
    if not any(first):
        raise ConfigError(f"study {study.name} has no adapter of its decision yet that PEFT could load.")
    for trial in (trial for trials in first for trial in trials):
        yield read_back(base, data, trial, device, attach_with_peft)


def attach_with_peft(model: nn.Module, adapter: Path) -> nn.Module:
    """Let PEFT put an adapter around a bare base model."""
    from peft import PeftModel

    loaded: nn.Module = PeftModel.from_pretrained(model, str(adapter))
    return loaded.eval()
