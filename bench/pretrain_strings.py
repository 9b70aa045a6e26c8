"""A small T5 that knows the strings of six programs' interfaces in English and French."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sacrebleu
import torch
from interface_catalogues import folded, pairs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from rankexp.tasks.interface_strings import read_strings
from rankexp.tasks.translation.base import plain

Pair = tuple[str, str]
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
VOCABULARY, UNSEEN, LONGEST = 4000, 400, 96
EPOCHS, BATCH, RATE = 24, 64, 1e-2


def t5() -> tuple[Any, Any]:
    """A T5 of 4.6 M parameters with a vocabulary of its own."""
    theirs = [(row.content.prompt, row.content.answer) for row in read_strings(plain, print).rows]
    found = pairs({folded(source) for source, _ in theirs})
    order = np.random.default_rng(0).permutation(len(found))
    seen, unseen = [found[i] for i in order[UNSEEN:]], [found[i] for i in order[:UNSEEN]]
    tokenizer = tokenizer_of(text for pair in seen for text in pair)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=192, d_kv=48, num_heads=4, d_ff=512, num_layers=3, num_decoder_layers=3,
        feed_forward_proj="gated-gelu", dropout_rate=0.1, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(seen):,} strings, {EPOCHS} times each")
    train(model, tokenizer, seen)
    for name, some in (("strings of its own kind", unseen), ("strings of JupyterLab", theirs[:UNSEEN])):
        written = write(model, tokenizer, [source for source, _ in some])
        targets, sources = [target for _, target in some], [source for source, _ in some]
        print(f"chrF of {len(some)} unseen {name}: {chrf(written, targets):.1f}, copied {chrf(sources, targets):.1f}")
    return model, tokenizer


def chrf(written: Sequence[str], targets: Sequence[str]) -> float:
    """Return the chrF of a corpus."""
    return float(sacrebleu.corpus_chrf(list(written), [list(targets)]).score)


def tokenizer_of(texts: Iterator[str]) -> Any:
    """Learn the most frequent parts of words; a mark before a word stands for the space there."""
    base = Tokenizer(models.BPE(unk_token=UNKNOWN))
    base.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation(), pre_tokenizers.Digits(individual_digits=True)]
    )
    base.decoder = decoders.Metaspace()
    special = [PAD, END, UNKNOWN]
    base.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    base.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=base, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, clean_up_tokenization_spaces=False
    )


def train(model: Any, tokenizer: Any, seen: Sequence[Pair]) -> None:
    """Train by Adafactor with a warm-up and a linear fall, on batches of strings of like length."""
    draw, began = np.random.default_rng(0), time.perf_counter()
    ids = [
        tokenizer([pair[side] for pair in seen], truncation=True, max_length=LONGEST)["input_ids"] for side in (0, 1)
    ]
    steps = EPOCHS * (len(seen) // BATCH)
    optimizer = torch.optim.Adafactor(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 200, (steps - step) / (steps - 200))
    )
    model.train()
    for step, index in enumerate(batches(ids, steps, draw)):
        source, target = (padded([side[i] for i in index]) for side in ids)
        labels = target.masked_fill(target == 0, -100)
        logits = model(input_ids=source, attention_mask=(source != 0).long(), labels=labels).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 200 == 199:
            print(
                f"step {step + 1} of {steps}: loss {loss.item():.3f}, {time.perf_counter() - began:.0f} s", flush=True
            )
    model.eval()


def batches(ids: Sequence[Sequence[list[int]]], steps: int, draw: np.random.Generator) -> Iterator[Sequence[int]]:
    """Draw batches of strings of like length, of each string once before any again."""
    lengths = np.array([max(len(a), len(b)) for a, b in zip(*ids, strict=True)])
    given = 0
    while True:
        order = draw.permutation(len(lengths))
        chunks = [order[i : i + 16 * BATCH] for i in range(0, len(order), 16 * BATCH)]
        found = [
            part[i : i + BATCH]
            for chunk in chunks
            for part in [chunk[np.argsort(lengths[chunk], kind="stable")]]
            for i in range(0, len(part) - BATCH + 1, BATCH)
        ]
        for place in draw.permutation(len(found)):
            if given == steps:
                return
            given += 1
            yield found[place].tolist()


def padded(rows: Sequence[list[int]]) -> torch.Tensor:
    """Return rows of ids as one table, filled with 0."""
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@torch.no_grad()
def write(model: Any, tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Translate texts, greedily."""
    found = []
    for i in range(0, len(texts), BATCH):
        rows = tokenizer(
            list(texts[i : i + BATCH]), padding=True, return_tensors="pt", truncation=True, max_length=LONGEST
        )
        rows.pop("token_type_ids", None)
        found += tokenizer.batch_decode(model.generate(**rows, max_new_tokens=LONGEST), skip_special_tokens=True)
    return found
