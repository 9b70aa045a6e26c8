"""torchtune's recipe for one device, as overrides of one of its configurations."""

from __future__ import annotations

import math

from rankexp.option_errors import ConfigError
from rankexp.report.recipe import Recipe, Setting, Written, notes_on

_ATTENTION = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "output_proj"}
_OTHERS = {"gate_proj", "up_proj", "down_proj"}


def write(setting: Setting) -> Written:
    """Write overrides.

    Raises:
        ConfigError: The adapted layers are none that torchtune can be told of.
    """
    names = {target.rpartition(".")[2] for target in setting.targets}
    known = names <= _ATTENTION.keys() | _OTHERS and names & _OTHERS in (set(), _OTHERS)
    if not known or any("." in target for target in setting.targets) or setting.saved:
        raise ConfigError("torchtune adapts q_proj, k_proj, v_proj, o_proj and all of the MLP alone, in every block.")
    notes = [
        "Take the configuration of your model for llama3_2/1B_lora_single_device; its own values are overridden.",
        f"An epoch ends with the data: raise epochs where {setting.steps:,} steps are more than one pass over yours.",
        *notes_on(setting, rows=False),
    ]
    if setting.schedule != "cosine":
        notes.append(f"torchtune's schedule is a cosine; that of this study was {setting.schedule}.")
    if setting.initialisation != "default" or setting.loraplus != 1:
        notes.append("Other starts of the factors than at random, and LoRA+, cannot be told.")
    alpha = setting.alpha * math.sqrt(setting.rank) if setting.rslora else setting.alpha
    if setting.rslora:
        notes.append("rsLoRA's scale is written as the alpha that gives it.")
    attention = ",".join(_ATTENTION[name] for name in _ATTENTION if name in names)
    values = {
        "model.lora_attn_modules": f"[{attention}]",
        "model.apply_lora_to_mlp": bool(names & _OTHERS),
        "model.apply_lora_to_output": False,
        "model.lora_rank": setting.rank,
        "model.lora_alpha": f"{alpha:.6g}",
        "model.lora_dropout": setting.dropout,
        **({"model.use_dora": True} if setting.method == "dora" else {}),
        **({"model.quantize_base": True} if setting.nf4 else {}),
        **({"tokenizer.max_seq_len": setting.longest} if setting.longest else {}),
        "epochs": 1,
        "max_steps_per_epoch": setting.steps,
        "batch_size": setting.batch,
        "gradient_accumulation_steps": setting.accumulation,
        "optimizer._component_": "torch.optim.AdamW",
        "optimizer.lr": f"{setting.rate:g}",
        "optimizer.weight_decay": setting.decay,
        "lr_scheduler.num_warmup_steps": setting.warmup,
        "clip_grad_norm": setting.clip or "null",
        "seed": setting.seed,
        "dtype": "bf16" if setting.half else "fp32",
    }
    lines = [f"    {name}={value}" for name, value in values.items()]
    head = "tune run lora_finetune_single_device --config llama3_2/1B_lora_single_device"
    return Written(" \\\n".join([head, *lines]), tuple(notes))


RECIPE = Recipe("torchtune", "torchtune 0.6.1", "bash", write, maps=False, place=6)
