"""TRL's trainer for supervised fine-tuning."""

from __future__ import annotations

import json

from rankexp.report.recipe import MODEL, Recipe, Setting, Written, arguments
from rankexp.report.recipes.peft import beside, lora_arguments, training_arguments


def write(setting: Setting) -> Written:
    """Write a trainer; only its data are left out."""
    config = arguments("LoraConfig", lora_arguments(setting))
    pinned = {"model_init_kwargs": {"revision": setting.revision}} if setting.revision else {}
    trainer = arguments("SFTConfig", {**training_arguments(setting), "max_length": setting.longest, **pinned})
    head = "from peft import LoraConfig\nfrom trl import SFTConfig, SFTTrainer\n\n"
    run = (
        f"trainer = SFTTrainer(\n    model={json.dumps(setting.model or MODEL)},\n    args=arguments,\n"
        "    peft_config=config,\n    train_dataset=your_rows,\n)"
    )
    return Written(f"{head}config = {config}\narguments = {trainer}\n{run}", beside(setting))


RECIPE = Recipe("TRL", "trl 1.16", "python", write, place=2)
