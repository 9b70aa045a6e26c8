"""PEFT with the Trainer of transformers."""

from __future__ import annotations

from typing import Any

from rankexp.report.recipe import Recipe, Setting, Written, arguments, notes_on


def lora_arguments(setting: Setting) -> dict[str, Any]:
    """Return the arguments of PEFT's ``LoraConfig``."""
    started = {"pissa": "pissa", "eva": "eva"}.get(setting.initialisation)
    return {
        "task_type": setting.task_type,
        "r": setting.rank,
        "lora_alpha": setting.alpha,
        "lora_dropout": setting.dropout,
        "use_rslora": setting.rslora or None,
        "use_dora": setting.method == "dora" or None,
        "init_lora_weights": started,
        "target_modules": setting.targets,
        "rank_pattern": dict(setting.ranks),
        "modules_to_save": setting.saved,
        "trainable_token_indices": setting.rows,
    }


def training_arguments(setting: Setting) -> dict[str, Any]:
    """Return the arguments of the trainer of transformers, and of those made of it."""
    return {
        "max_steps": setting.steps,
        "per_device_train_batch_size": setting.batch,
        "gradient_accumulation_steps": setting.accumulation,
        "learning_rate": setting.rate,
        "lr_scheduler_type": setting.scheduler,
        "warmup_steps": setting.warmup,
        "weight_decay": setting.decay,
        "max_grad_norm": setting.clip,
        "seed": setting.seed,
        "bf16": setting.half,
    }


def beside(setting: Setting) -> tuple[str, ...]:
    """Say what a trainer of transformers is not told by its arguments."""
    found = list(notes_on(setting))
    if setting.loraplus != 1:
        decay = f", loraplus_weight_decay={setting.decay:g}" if setting.decay else ""
        ratio = f"loraplus_lr_ratio={setting.loraplus:g}{decay}"
        found.append(f"LoRA+: give the trainer PEFT's `create_loraplus_optimizer(…, {ratio})`.")
    if setting.initialisation == "eva":
        found.append("EVA: call `peft.initialize_lora_eva_weights(model, dataloader)` before training.")
    if setting.nf4:
        found.append("The base was kept in 4 bits: load it with `BitsAndBytesConfig(load_in_4bit=True)`, type nf4.")
    return tuple(found)


def write(setting: Setting) -> Written:
    """Write both configurations."""
    config = arguments("LoraConfig", lora_arguments(setting))
    trainer = arguments("TrainingArguments", training_arguments(setting))
    head = "from peft import LoraConfig\nfrom transformers import TrainingArguments\n\n"
    return Written(f"{head}config = {config}\narguments = {trainer}", beside(setting))


RECIPE = Recipe("PEFT", "peft 0.21, transformers 5", "python", write, tasks=(), place=1)
