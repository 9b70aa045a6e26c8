"""One trial as others would write it: with PEFT and a plain loop, and with PEFT and the Hugging Face Trainer.

Both follow their libraries' documentation. Nothing of rankexp trains here; it only provides the texts as token ids, so
that every arm sees the same examples.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from rankexp.models.base import Padding
from rankexp.objectives.base import Batch
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Texts
from rankexp.training.batching import training_batches
from rankexp.training.device import autocast
from rankexp.training.optim import rate_factor

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""Leaves out the base model's own dropout, as rankexp does."""


@dataclass(frozen=True)
class Setting:
    """What every arm trains: LoRA on all linear layers, AdamW, linear decay after warm-up, clipping at 1."""

    rank: int = 8
    learning_rate: float = 3e-3
    seed: int = 0
    steps: int = 60
    batch_size: int = 32
    warmup_steps: int = 6
    alpha: int = 16
    bfloat16: bool = False


class Rows(torch.utils.data.Dataset):
    """A split as the Trainer wants it: unpadded token ids and a label an example."""

    def __init__(self, split: Texts) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, i: int) -> dict[str, object]:
        ids = self.split.tokens[i].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(self.split.labels[i])}


def peft_model(folder: str, labels: int, setting: Setting, **config: object) -> nn.Module:
    """Load the model, with changes of its configuration, and let PEFT adapt it."""
    torch.manual_seed(setting.seed)
    base = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, **config)
    lora = LoraConfig(
        task_type="SEQ_CLS", r=setting.rank, lora_alpha=setting.alpha, target_modules="all-linear", lora_dropout=0.0
    )
    return get_peft_model(base, lora)


def train_bare(model: nn.Module, data: TaskData, setting: Setting, device: torch.device) -> float:
    """Train with a plain loop on the very batches that rankexp would draw; return the mean loss of the last steps."""
    model.to(device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=setting.learning_rate, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: rate_factor(step, steps=setting.steps, warmup_steps=setting.warmup_steps, schedule="linear"),
    )
    split = data.splits["train"]
    drawn = itertools.islice(training_batches(split, setting.batch_size, setting.seed), setting.steps)
    batches = (data.objective.collate(split, [index], Padding(0), device) for index in drawn)
    precision = "bfloat16" if setting.bfloat16 else "float32"
    return float(np.mean(plain_loop(model, batches, optimizer, scheduler, precision)[-8:]))


def plain_loop(
    model: nn.Module, batches: Iterable[Batch], optimizer: Any, scheduler: Any, precision: str
) -> list[float]:
    """Train on batches as people write it by hand, gradients clipped to 1; return the loss of each step."""
    losses = []
    for batch in batches:
        with autocast(precision, batch.labels.device):
            loss = model(**batch.inputs, labels=batch.labels).loss
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def make_trainer(model: nn.Module, folder: str, data: TaskData, setting: Setting, device: torch.device) -> Trainer:
    """Make a Trainer as its documentation shows: dynamic padding, no evaluation in between, nothing saved."""
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=setting.batch_size,
        per_device_eval_batch_size=128,
        max_steps=setting.steps,
        learning_rate=setting.learning_rate,
        warmup_steps=setting.warmup_steps,
        seed=setting.seed,
        bf16=setting.bfloat16,
        use_cpu=device.type == "cpu",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=Rows(data.splits["train"]),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(folder)),
        compute_metrics=lambda output: {"accuracy": float((output[0].argmax(-1) == output[1]).mean())},
    )


def check_loss(loss: float, labels: int) -> float:
    """Return a training loss that is better than guessing: a bench of something that does not learn is worthless."""
    if not loss < math.log(labels):
        raise AssertionError(f"a mean loss of {loss:.3f} is no better than guessing among {labels} classes")
    return loss
