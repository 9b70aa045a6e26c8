"""What is exported and where to; what each format is given and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from rankexp.lora.peft_reading import load_adapter
from rankexp.models.base import BaseModel
from rankexp.option_errors import ConfigError
from rankexp.tasks.base import TaskData

Format = Literal["peft", "serving", "merged"]


@dataclass(frozen=True)
class Target:
    """One adapter on its way out.

    Attributes:
        name: What to call it.
        adapter: Folder of the adapter, in PEFT's format.
        base: The base model.
        data: What it was scored on.
        device: Where models are asked.
        folder: Where to write; empty.
        revision: Of the base model on its hub.
    """

    name: str
    adapter: Path
    base: BaseModel
    data: TaskData
    device: torch.device
    folder: Path
    revision: str | None = None

    def bare(self) -> nn.Module:
        """Make the base model anew."""
        return self.base.place(self.base.build(self.data.objective.kind), self.device)

    def adapted(self, folder: Path | None = None) -> nn.Module:
        """Make the base model with the adapter of a folder; its own where None."""
        model = self.bare()
        load_adapter(model, folder or self.adapter)
        return model.to(self.device).eval()

    @property
    def rounding(self) -> float:
        """Largest difference of a logit that rounding explains, relative to the largest logit above 1."""
        return 1e-4 if self.base.dtype == "float32" and not self.base.quantise else 5e-2

    @property
    def loads_from(self) -> str:
        """What others load the base model from.

        Raises:
            ConfigError: It has no files.
        """
        if self.base.loads_from is None:
            raise ConfigError(
                f"model {self.base.name} is one of a configuration, of which there are no files that another tool "
                "could load; --format merged writes it whole."
            )
        return self.base.loads_from


@dataclass(frozen=True)
class Written:
    """What a format wrote.

    Attributes:
        read: Reads it back as a model to be asked.
        allowed: Largest difference of a logit from the trial's own adapter that rounding explains; None where more than
            rounding is between them, which is measured and said.
        use: How to load it: lines of Python or of a shell.
        language: Of these lines.
        notes: What else there is to know, a sentence each.
    """

    read: Callable[[], nn.Module]
    allowed: float | None
    use: str
    language: str = "python"
    notes: tuple[str, ...] = ()
