"""ms-swift's command."""

from __future__ import annotations

import shlex

from rankexp.report.recipe import MODEL, Recipe, Setting, Written, notes_on


def write(setting: Setting) -> Written:
    """Write a command; only its data are left out."""
    values = {
        "model": setting.model or MODEL,
        "use_hf": "true",
        "model_revision": setting.revision,
        "tuner_type": "lora",
        "quant_method": "bnb" if setting.nf4 else None,
        "quant_bits": 4 if setting.nf4 else None,
        "lora_rank": setting.rank,
        "lora_alpha": f"{setting.alpha:g}",
        "lora_dropout": setting.dropout,
        "target_modules": setting.targets,
        "modules_to_save": setting.saved or None,
        "use_rslora": "true" if setting.rslora else None,
        "use_dora": "true" if setting.method == "dora" else None,
        "init_weights": setting.initialisation if setting.initialisation == "pissa" else None,
        "lorap_lr_ratio": f"{setting.loraplus:g}" if setting.loraplus != 1 else None,
        "max_length": setting.longest,
        "max_steps": setting.steps,
        "per_device_train_batch_size": setting.batch,
        "gradient_accumulation_steps": setting.accumulation,
        "learning_rate": f"{setting.rate:g}",
        "lr_scheduler_type": setting.scheduler,
        "warmup_steps": setting.warmup,
        "weight_decay": setting.decay,
        "adam_beta2": 0.999,
        "max_grad_norm": setting.clip,
        "seed": setting.seed,
        "torch_dtype": "bfloat16" if setting.half else "float32",
    }
    lines = [
        f"    --{name} {' '.join(map(shlex.quote, value)) if isinstance(value, list) else shlex.quote(str(value))}"
        for name, value in values.items()
        if value is not None
    ]
    return Written(" \\\n".join(["swift sft", *lines]), notes_on(setting, rows=False, eva=False))


RECIPE = Recipe("ms-swift", "ms-swift 4.6", "bash", write, maps=False, place=7)
