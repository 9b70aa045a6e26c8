"""axolotl's YAML."""

from __future__ import annotations

from rankexp.report.recipe import MODEL, Recipe, Setting, Written, as_yaml, notes_on


def write(setting: Setting) -> Written:
    """Write a configuration; only its data are left out."""
    notes = list(notes_on(setting, eva=False))
    if setting.loraplus != 1 and setting.decay:
        notes.append("axolotl's LoRA+ decays no weights.")
    if setting.warmup == 1:
        notes.append("axolotl makes one step of warm-up two.")
    text = as_yaml({
        "base_model": setting.model or MODEL,
        "revision_of_model": setting.revision,
        "adapter": "qlora" if setting.nf4 else "lora",
        "load_in_4bit": setting.nf4 or None,
        "lora_r": setting.rank,
        "lora_alpha": setting.whole_alpha,
        "lora_dropout": setting.dropout,
        "lora_target_modules": setting.targets,
        "lora_rank_pattern": dict(setting.ranks),
        "lora_modules_to_save": setting.saved,
        "peft_use_rslora": setting.rslora or None,
        "peft_use_dora": setting.method == "dora" or None,
        "peft_init_lora_weights": "pissa" if setting.initialisation == "pissa" else None,
        "peft_trainable_token_indices": setting.rows,
        "loraplus_lr_ratio": setting.loraplus if setting.loraplus != 1 else None,
        "sequence_len": setting.longest,
        "max_steps": setting.steps,
        "micro_batch_size": setting.batch,
        "gradient_accumulation_steps": setting.accumulation,
        "optimizer": "adamw_torch",
        "learning_rate": setting.rate,
        "lr_scheduler": setting.scheduler,
        "warmup_steps": setting.warmup,
        "weight_decay": setting.decay,
        "max_grad_norm": setting.clip,
        "seed": setting.seed,
        "bf16": setting.half,
    })  # fmt: skip
    return Written(text, tuple(notes))


RECIPE = Recipe("axolotl", "axolotl 0.19", "yaml", write, place=3)
