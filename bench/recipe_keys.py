"""List the keys that other trainers read, from the source of their published packages: `tests/report/recipe_keys.json`.

`python bench/recipe_keys.py` fetches each package, reads it as an archive without importing it, and prints JSON. What
is inherited from transformers and PEFT is read from those installed here.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig
from transformers import TrainingArguments

PACKAGES = {
    "trl": "trl==1.16.0",
    "axolotl": "axolotl==0.19.0",
    "llamafactory": "llamafactory==0.9.5",
    "unsloth": "unsloth==2026.10.9",
    "torchtune": "torchtune==0.6.1",
    "swift": "ms-swift==4.6.0",
}


def fetched(requirement: str, folder: Path) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True, stderr=subprocess.DEVNULL)
    (wheel,) = folder.glob(f"{requirement.partition('=')[0].replace('-', '_')}-*.whl")
    return zipfile.ZipFile(wheel)


def of_classes(wheel: zipfile.ZipFile, folder: str) -> set[str]:
    """Names of the annotated fields of every class in a file, or in every file below a folder."""
    found = set()
    for name in wheel.namelist():
        if name.startswith(folder) and name.endswith(".py"):
            classes = [node for node in ast.walk(ast.parse(wheel.read(name))) if isinstance(node, ast.ClassDef)]
            lines = [line for one in classes for line in one.body if isinstance(line, ast.AnnAssign)]
            found |= {line.target.id for line in lines if isinstance(line.target, ast.Name)}
    return found


def of_functions(wheel: zipfile.ZipFile, file: str, names: Iterable[str]) -> set[str]:
    """Names of the arguments of functions."""
    functions = [node for node in ast.walk(ast.parse(wheel.read(file))) if isinstance(node, ast.FunctionDef)]
    return {arg.arg for one in functions if one.name in names for arg in [*one.args.args, *one.args.kwonlyargs]}


def flattened(values: dict[str, Any], prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return found


def main() -> None:
    trainer = {item.name for item in fields(TrainingArguments)}
    lora = {item.name for item in fields(LoraConfig)}
    with tempfile.TemporaryDirectory() as made:
        wheels = {name: fetched(requirement, Path(made)) for name, requirement in PACKAGES.items()}
        tune = wheels["torchtune"]
        builder = of_functions(tune, "torchtune/models/llama3_2/_model_builders.py", ["lora_llama3_2_1b"])
        read = yaml.safe_load(tune.read("recipes/configs/llama3_2/1B_lora_single_device.yaml"))
        sft = of_classes(wheels["trl"], "trl/trainer/sft_config.py") | trainer
        unsloth = of_functions(wheels["unsloth"], "unsloth/models/llama.py", ["get_peft_model", "from_pretrained"])
        found = {
            "peft": lora | trainer,
            "trl": sft | lora,
            "axolotl": of_classes(wheels["axolotl"], "axolotl/utils/schemas/"),
            "llamafactory": of_classes(wheels["llamafactory"], "llamafactory/hparams/") | trainer,
            "unsloth": unsloth | lora | sft,
            "torchtune": {f"model.{name}" for name in builder} | flattened(read),
            "swift": of_classes(wheels["swift"], "swift/arguments/") | trainer,
        }
    print(json.dumps({name: sorted(keys) for name, keys in found.items()}, indent=1))


if __name__ == "__main__":
    main()
