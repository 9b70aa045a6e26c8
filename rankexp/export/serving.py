"""One rank and one alpha for all layers, for servers that read ``r``, ``lora_alpha`` and ``use_rslora`` alone.

vLLM is one (``vllm/lora/peft_helper.py``, read in November 2026): it multiplies by ``lora_alpha / r``, whatever a
``rank_pattern`` says, and refuses DoRA and modules that are saved whole. Factors of a lower rank are filled up with
zeros, and each layer's scale is multiplied into its B, so that the scale of all is 1.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rankexp.export.target import Target, Written
from rankexp.lora.dora import DoRALayer
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.peft_format import CONFIG_NAME, PREFIX, WEIGHTS_NAME
from rankexp.lora.peft_names import target_modules
from rankexp.lora.peft_reading import load_adapter
from rankexp.option_errors import ConfigError

ALLOWED = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``--max-lora-rank`` (``vllm/config/lora.py``)."""
_LINEAR = (".lora_A.weight", ".lora_B.weight")


def write_serving(target: Target) -> Written:
    """Write an adapter of one rank.

    Raises:
        ConfigError: A server of that kind cannot hold it; the message says why.
    """
    from safetensors.torch import save_file

    config = json.loads((target.adapter / CONFIG_NAME).read_text(encoding="utf-8"))
    model = target.base.build(target.data.objective.kind)
    load_adapter(model, target.adapter)
    loaded = lora_layers(model)
    if why := next(_refused(config, loaded), None):
        raise ConfigError(f"{target.name} cannot be exported for a server: {why}; --format merged holds it.")
    rank = max(layer.rank for layer in loaded.values())
    if rank > ALLOWED[-1]:
        raise ConfigError(f"{target.name} has rank {rank}, and servers take {ALLOWED[-1]} at most.")
    tensors = {key: value for name, layer in loaded.items() for key, value in _factors(name, layer, rank)}
    written = _config(target, config, rank, target_modules(model, loaded))
    text = json.dumps(written, indent=2, sort_keys=True) + "\n"
    (target.folder / CONFIG_NAME).write_text(text, encoding="utf-8")
    save_file(tensors, target.folder / WEIGHTS_NAME, metadata={"format": "pt"})
    pinned = f" --revision {shlex.quote(target.revision)}" if target.revision else ""
    most = next(size for size in ALLOWED if size >= rank)
    use = (
        f"vllm serve {shlex.quote(target.loads_from)}{pinned} --enable-lora --max-lora-rank {most} \\\n"
        f"    --lora-modules {shlex.quote(f'{target.name}={target.folder}')}"
    )
    ranks = sorted({layer.rank for layer in loaded.values()})
    filled = f"layers of rank {', '.join(map(str, ranks))}" if len(ranks) > 1 else f"all layers of rank {rank}"
    return Written(
        lambda: target.adapted(target.folder),
        target.rounding,
        use,
        "bash",
        (f"One rank of {rank} holds {filled}; every scale is multiplied into the factors, so that it is 1.",),
    )


def _config(target: Target, config: Mapping[str, Any], rank: int, targets: list[str] | str) -> dict[str, Any]:
    """Return the config of an adapter whose scale is 1 in every layer."""
    return {
        "base_model_name_or_path": target.loads_from,
        "bias": "none",
        "fan_in_fan_out": config["fan_in_fan_out"],
        "inference_mode": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": target.revision,
        "target_modules": targets,
        "task_type": config["task_type"],
        "use_dora": False,
        "use_rslora": False,
    }


def _refused(config: Mapping[str, Any], layers: Mapping[str, LoRALayer]) -> Iterator[str]:
    """Say why a server would refuse an adapter, or read another than was written."""
    if config.get("modules_to_save"):
        yield f"it brings {', '.join(config['modules_to_save'])} whole, which servers of adapters do not take"
    if config.get("trainable_token_indices"):
        yield "it brings embeddings of its own, which servers of adapters do not take"
    for name, layer in layers.items():
        if isinstance(layer, DoRALayer):
            yield "it is DoRA, which servers of adapters do not take"
        if layer.base_kind.peft_names != _LINEAR or layer.weight.dim() != 2:
            yield f"{name} is no linear layer, and servers of adapters take no other"
    if not layers:
        yield "it adapts no layer"


@torch.no_grad()
def _factors(name: str, layer: LoRALayer, rank: int) -> Iterator[tuple[str, Tensor]]:
    lacking = rank - layer.rank
    scaled = (layer.lora_B.double() * layer.scaling).to(layer.lora_B.dtype)
    yield f"{PREFIX}{name}{_LINEAR[0]}", functional.pad(layer.lora_A.detach(), (0, 0, 0, lacking)).contiguous()
    yield f"{PREFIX}{name}{_LINEAR[1]}", functional.pad(scaled, (0, lacking)).contiguous()
