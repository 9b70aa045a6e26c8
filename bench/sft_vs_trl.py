"""Tokens a second of fine-tuning a language model: rankexp, a plain PEFT loop, and TRL's SFTTrainer, on the same rows.

Every arm trains LoRA on all linear layers but the output layer on the same token ids, with the same targets, steps and
batch size; rankexp and the plain loop see the very same batches. Arms take turns within one process, round by round.
TRL comes twice: made equal (precision, no checkpointing, targets), and as its defaults come, which are listed.
Only training is timed for the others; rankexp's time includes making and recording the trial. Beside it stands the
floor: the products of frozen weights that no way of training avoids, at the speed of a large matrix product here.

    python bench/sft_vs_trl.py --rounds 3 --precision float32 bfloat16
    python bench/sft_vs_trl.py --device cuda --model local --path … --length 1024

It needs TRL, which rankexp does not: pip install trl.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import plain_loop
from pack_vs_peft import Queue, in_lanes
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from rankexp.assets import asset_folder
from rankexp.models.base import find_model
from rankexp.models.gguf import as_safetensors
from rankexp.models.loading import output_layer
from rankexp.ranks import RankMap
from rankexp.tasks.examples import Targets
from rankexp.tasks.sft.code import CodeTask
from rankexp.training.batching import training_batches
from rankexp.training.bench import Bench
from rankexp.training.optim import rate_factor
from rankexp.trial_spec import TrialSpec

RATE, RANK, ALPHA, WARMUP = 1e-3, 8, 16, 1
LISTED = ("bf16", "gradient_checkpointing", "max_length", "packing", "completion_only_loss", "optim", "max_grad_norm")
"""Settings of TRL that are printed."""


def long_rows(bench: Bench, length: int) -> Bench:
    """Keep the rows that fill at least half the length, so that padding is no matter of luck."""
    train = bench.data.splits["train"]
    kept = train.take(np.flatnonzero(train.sizes >= length // 2))
    data = type(bench.data)(bench.data.task, {**bench.data.splits, "train": kept}, bench.data.objective)
    return Bench(bench.base, bench.pack, data, bench.device)


def spec_of(bench: Bench, options: argparse.Namespace, precision: str, seed: int) -> TrialSpec:
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="code",
        method="lora",
        rank_map=RankMap.uniform(bench.shapes("all-linear"), RANK),
        alpha=float(ALPHA),
        learning_rate=RATE,
        steps=options.steps,
        warmup_steps=WARMUP,
        batch_size=options.batch,
        seed=seed,
        precision=precision,
        evaluate=(),
    )


def ours(benches: list[Bench], specs: list[TrialSpec], pack: int) -> tuple[float, list[float]]:
    """Train one trial a spec, a lane a bench; return the seconds, and the losses of the first spec."""
    queue, first = Queue(list(specs)), specs[0].seed
    seconds = in_lanes(benches, queue, pack)
    (trial,) = (trial for trial in queue.done if trial.spec.seed == first)
    return seconds, [row["loss"] for row in trial.result.history]


def same_work(ours: list[float], theirs: list[float]) -> None:
    """Refuse arms that do not see the same batches, or do not learn alike; their factors alone differ at first."""
    if not (np.allclose(ours[:1], theirs[:1], rtol=0.02) and np.allclose(ours, theirs, rtol=0.2)):
        raise AssertionError(f"the losses of two arms differ: {ours} and {theirs}")


def peft_model(folder: Path, device: torch.device) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear", lora_dropout=0.0)
    return get_peft_model(model, lora).to(device)


def bare(
    model: nn.Module, bench: Bench, options: argparse.Namespace, precision: str, seed: int
) -> tuple[float, list[float]]:
    """Train with a plain loop on the very batches of the rankexp trial of that seed; return the seconds and losses."""
    parameters = [p for p in model.train().parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps=options.steps, warmup_steps=WARMUP, schedule="linear")
    )
    split, began = bench.data.splits["train"], time.perf_counter()
    drawn = itertools.islice(training_batches(split, options.batch, seed), options.steps)
    batches = (bench.data.objective.collate(split, [index], bench.padding, bench.device) for index in drawn)
    losses = plain_loop(model, batches, optimizer, scheduler, precision)
    return time.perf_counter() - began, losses


def rows_for_trl(split: Targets, options: argparse.Namespace, seed: int) -> Any:
    """Return the rows of the batches that the other arms see, in TRL's own order."""
    from datasets import Dataset

    batches = itertools.islice(training_batches(split, options.batch, seed), options.steps)
    return Dataset.from_list(
        [
            {"input_ids": split.tokens[i].tolist(), "completion_mask": split.targets[i].astype(int).tolist()}
            for index in batches
            for i in index
        ]
    )


def trl(folder: Path, bench: Bench, options: argparse.Namespace, seed: int, **config: Any) -> float:
    """Train with SFTTrainer; return the seconds of ``train``."""
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=options.steps, per_device_train_batch_size=options.batch,
        learning_rate=RATE, seed=seed, use_cpu=bench.device.type == "cpu", save_strategy="no", report_to=[],
        disable_tqdm=True, logging_strategy="no", **config,
    )  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows, model = rows_for_trl(bench.data.splits["train"], options, seed), peft_model(folder, bench.device)
    trainer = SFTTrainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    print("TRL:", {name: getattr(arguments, name) for name in LISTED})
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def floor(bench: Bench, precision: str) -> float:
    """Return tokens a second if the products that cannot be avoided ran as fast as a large one does here.

    Forward, and the gradient of the activations: 4 operations a frozen weight, of the blocks for each token, of the
    output layer for each target.
    """
    split = bench.data.splits["train"]
    shapes, (head,) = bench.shapes("all-linear"), output_layer(bench.model)
    blocks = sum(wide * out for wide, out in shapes.values())
    learned = split.counts.sum() / split.sizes.sum()
    each = 4 * (blocks + learned * bench.model.get_submodule(head).weight.numel())
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.ones(2048, 2048, dtype=dtype, device=bench.device) for _ in range(2))
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        left @ right
        if bench.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    speed = 2 * 2048**3 / min(seconds)
    print(f"{precision}: {speed / 1e9:,.0f} GFLOP/s, {each / 1e6:,.0f} MFLOP a token")
    return speed / each


def tokens_of(bench: Bench, options: argparse.Namespace, seed: int) -> int:
    split = bench.data.splits["train"]
    return sum(
        int(split.sizes[index].sum())
        for index in itertools.islice(training_batches(split, options.batch, seed), options.steps)
    )


def compare(benches: list[Bench], folder: Path, options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Let the arms take turns, and print tokens a second."""
    first, half = benches[0], precision == "bfloat16"
    count = len(benches) * options.pack
    speeds: dict[str, list[float]] = {"rankexp": [], "PEFT, plain loop": [], "TRL, made equal": []}
    equal = {"bf16": half, "gradient_checkpointing": False, "max_length": options.length, "completion_only_loss": True}
    if options.defaults:
        speeds["TRL, its defaults"] = []
    for i in range(options.rounds):
        specs = [spec_of(first, options, precision, 100 * i + k) for k in range(count)]
        seeds = [spec.seed for spec in specs]
        seconds, mine = ours(benches, specs, options.pack)
        speeds["rankexp"].append(sum(tokens_of(first, options, seed) for seed in seeds) / seconds)
        alone = tokens_of(first, options, seeds[0])
        seconds, theirs = bare(peft_model(folder, first.device), first, options, precision, seeds[0])
        same_work(mine, theirs)
        speeds["PEFT, plain loop"].append(alone / seconds)
        speeds["TRL, made equal"].append(alone / trl(folder, first, options, seeds[0], **equal))
        if options.defaults:
            speeds["TRL, its defaults"].append(alone / trl(folder, first, options, seeds[0]))
        print(precision, "round", i, {name: round(found[-1]) for name, found in speeds.items()}, flush=True)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    medians["floor"] = floor(first, precision)
    print(f"\n| {precision} | tokens a second | rankexp is |\n|---|---:|---:|")
    for name, speed in medians.items():
        print(f"| {name} | {speed:,.0f} | {medians['rankexp'] / speed:.2f} x |")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--path", help="folder of another model than the packaged SmolLM2")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pack", type=int, default=1, help="rankexp's trials in one pack")
    parser.add_argument("--jobs", type=int, default=1, help="rankexp's packs side by side, on a processor")
    parser.add_argument("--defaults", action="store_true", help="TRL as its defaults come, too")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    source = {"source": "local", "path": options.path} if options.path else {"source": "asset", "path": "smollm2"}
    found = find_model(name="model", **source)
    folder = Path(options.path) if options.path else as_safetensors(asset_folder("smollm2", print), print)
    sizes = {"train": 600, "tune": 20, "decide": 20, "test": 20}
    bench = Bench.load(
        found,
        CodeTask(sizes=sizes, max_length=options.length).load(found.processor, print),
        torch.device(options.device),
    )
    bench = long_rows(bench, options.length)
    benches = [bench, *(bench.copy() for _ in range(1, options.jobs))]
    results = {precision: compare(benches, folder, options, precision) for precision in options.precision}
    print(json.dumps({name: {arm: round(speed, 1) for arm, speed in row.items()} for name, row in results.items()}))


if __name__ == "__main__":
    main()
