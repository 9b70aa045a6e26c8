"""Train a small model on one part of packaged data, for a sweep that adapts it to the other part; minutes on two cores.

`python bench/pretrain.py digits_vit` (or `digits_resnet`, `strings_t5`) writes a folder of transformers into rankexp's
cache, where `model=digits_vit` finds it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import pretrain_digits
import pretrain_strings
import torch

from rankexp.assets import cache_folder

MODELS = {
    "digits_vit": pretrain_digits.vit,
    "digits_resnet": pretrain_digits.resnet,
    "strings_t5": pretrain_strings.t5,
}
"""Trains each, and returns it with its processor."""


def save(model: Any, processor: Any, name: str) -> Path:
    """Write the model's folder at once."""
    folder = cache_folder() / "pretrained" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder.parent) as made:
        model.save_pretrained(Path(made) / name)
        processor.save_pretrained(Path(made) / name)
        shutil.rmtree(folder, ignore_errors=True)
        (Path(made) / name).rename(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=list(MODELS))
    name, began = parser.parse_args().name, time.perf_counter()
    torch.manual_seed(0)
    model, processor = MODELS[name]()
    print(f"{save(model, processor, name)} written after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
