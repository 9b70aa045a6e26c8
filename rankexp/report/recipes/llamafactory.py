"""LLaMA-Factory's YAML."""

from __future__ import annotations

from rankexp.report.recipe import MODEL, Recipe, Setting, Written, as_yaml, notes_on


def write(setting: Setting) -> Written:
    """Write a configuration; only its data and template are left out."""
    text = as_yaml({
        "model_name_or_path": setting.model or MODEL,
        "model_revision": setting.revision,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "quantization_bit": 4 if setting.nf4 else None,
        "quantization_method": "bnb" if setting.nf4 else None,
        "lora_rank": setting.rank,
        "lora_alpha": setting.whole_alpha,
        "lora_dropout": setting.dropout,
        "lora_target": ",".join(setting.targets),
        "additional_target": ",".join(setting.saved) or None,
        "use_rslora": setting.rslora or None,
        "use_dora": setting.method == "dora" or None,
        "pissa_init": setting.initialisation == "pissa" or None,
        "loraplus_lr_ratio": setting.loraplus if setting.loraplus != 1 else None,
        "cutoff_len": setting.longest,
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
    })  # fmt: skip
    return Written(text, notes_on(setting, rows=False, eva=False))


RECIPE = Recipe("LLaMA-Factory", "llamafactory 0.9.5", "yaml", write, maps=False, place=4)
