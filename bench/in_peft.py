"""Does PEFT, in a fresh process, give the recorded loss of every *decide* example, and the same completions?

The base is loaded by transformers alone, the adapter by PEFT, from the study's record; the loss is transformers' own,
row by row without padding, and completions are those of its `generate`, one prompt at a time. rankexp only reads the
rows, and what was recorded.

    python bench/in_peft.py runs/studies/NAME [--rank R] [--completions 40]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging

from rankexp import load_study
from rankexp.assets import asset_folder
from rankexp.models.base import find_model
from rankexp.models.gguf import as_safetensors
from rankexp.objectives.token_losses import IGNORED
from rankexp.record.trial import Trial
from rankexp.tasks.base import make_task
from rankexp.tasks.examples import Prompted

FLOAT32 = 1e-4


def compared(model: torch.nn.Module, split: Prompted, trial: Trial) -> dict[str, object]:
    """Compare the loss of every example with the recorded one."""
    recorded, found = trial.scores("decide").values["loss"].astype(np.float64), []
    for ids, targets in zip(split.tokens, split.targets, strict=True):
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        labels = torch.where(torch.from_numpy(targets)[None], tokens, IGNORED)
        found.append(float(model(input_ids=tokens, labels=labels).loss))
    apart = np.abs(np.array(found) - recorded)
    return {
        "examples": len(found),
        "recorded_mean": round(float(recorded.mean()), 5),
        "mean_in_peft": round(float(np.mean(found)), 5),
        "largest_difference": float(apart.max()),
        "correlation": float(np.corrcoef(found, recorded)[0, 1]),
    }


def written(model: torch.nn.Module, data: object, split: Prompted, trial: Trial, most: int) -> dict[str, int]:
    """Count the completions that are the recorded ones, letter by letter."""
    generation = data.objective.writing
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=generation.max_new_tokens, eos_token_id=list(generation.stops), pad_token_id=0
    )
    known = {row.example_id: row.completion for row in trial.generations("decide")}
    same = 0
    for example, prompt in list(zip(split.example_ids.tolist(), split.prompts, strict=True))[:most]:
        ids = torch.from_numpy(prompt.astype(np.int64))[None]
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        new = out[0, len(prompt) :].tolist()
        end = next((place for place, token in enumerate(new) if token in generation.stops), len(new))
        text = generation.tokenizer.decode(new[:end], clean_up_tokenization_spaces=False)
        same += text == known[example]
    return {"completions": min(most, len(split.prompts)), "the_same": same}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--rank", type=int, help="one of the ranks that were decided on; the largest by default")
    parser.add_argument("--completions", type=int, default=40)
    options = parser.parse_args()
    logging.set_verbosity_error()
    study = load_study(Path(options.study))
    model_of = study.config.model
    folder = as_safetensors(asset_folder(model_of.path), print) if model_of.source == "asset" else Path(model_of.path)
    tokenize = find_model(name="model", source=model_of.source, path=model_of.path).processor
    data = make_task(study.config.task).load(tokenize, print)
    assert data.fingerprint == study.record.data["fingerprint"]
    trial = study.chosen_trials(options.rank or study.ranks[-1])[0]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(trial.adapter)).eval()
    split = data.splits["decide"]
    result = {"rank": trial.spec.rank, "seed": trial.spec.seed, "precision": trial.spec.precision}
    result |= compared(model, split, trial)
    if isinstance(split, Prompted):
        result |= written(model, data, split, trial, options.completions)
    print(json.dumps(result, indent=1))
    if trial.spec.precision == "float32" and result["largest_difference"] > FLOAT32:
        raise SystemExit(f"a loss is off by {result['largest_difference']:g}")
    if result.get("the_same", 0) < result.get("completions", 0):
        raise SystemExit("a completion is another one")


if __name__ == "__main__":
    main()
