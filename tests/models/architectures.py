"""Tiny models of many architectures, saved as folders with a small tokenizer, as somebody might have them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

WORDS = [*"abcdefgh", "bad", "poor", "sad", "good", "fine", "nice", *(f"w{i}" for i in range(40))]
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
SIZE = len(SPECIAL) + len(WORDS) + 4

ENCODER = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
           "max_position_embeddings": 40, "vocab_size": SIZE}  # fmt: skip
DECODER = {**ENCODER, "num_key_value_heads": 1, "head_dim": 8}
GPT = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 40, "vocab_size": SIZE}
SEQ = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": SIZE,
       "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 40}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model folder.

    Attributes:
        kind: Its model type.
        values: Of its configuration.
        pad: Padding token of the tokenizer; None for none.
        eos: End token of the tokenizer; None for none.
        ends: Whether the tokenizer puts the end token after each text.
        labels: Classes of the task.
        body: Class that is saved; the classifier itself if None.
        shard: Most bytes of a file.
        dtype: Of the saved weights.
        saved: Classes of the saved classifier, if others.
    """

    kind: str
    values: dict[str, Any] = field(default_factory=dict)
    pad: str | None = "<pad>"
    eos: str | None = "</s>"
    ends: bool = True
    labels: int = 2
    body: Any = None
    shard: str | None = None
    dtype: torch.dtype = torch.float32
    saved: int | None = None


IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
BERT = {**ENCODER, "pad_token_id": 0}
CASES = {
    "bert": Case("bert", BERT),
    "distilbert": Case("distilbert", {"dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "vocab_size": SIZE}),
    "roberta": Case("roberta", {**ENCODER, **IDS}),
    "xlm-roberta": Case("xlm-roberta", {**ENCODER, **IDS, "pad_token_id": 1}),
    "mpnet": Case("mpnet", {**ENCODER, **IDS, "pad_token_id": 1}),
    "albert": Case("albert", {**BERT, "embedding_size": 8}),
    "electra": Case("electra", {**BERT, "embedding_size": 8}),
    "deberta-v2": Case("deberta-v2", {**BERT, "relative_attention": True, "position_biased_input": False,
                                      "pos_att_type": ["p2c", "c2p"], "position_buckets": 8}),
    "gpt2": Case("gpt2", {**GPT, "bos_token_id": 2, "eos_token_id": 3}, pad=None, ends=False),
    "gpt2 that ends its texts": Case("gpt2", {**GPT, "bos_token_id": 2, "eos_token_id": 3}, pad=None),
    "llama": Case("llama", {**DECODER, **IDS}),
    "llama padded otherwise": Case("llama", {**DECODER, **IDS}, pad=None),
    "llama with a pad beyond the table": Case("llama", {**DECODER, **IDS, "pad_token_id": -1}, pad=None),
    "llama without pad or end": Case("llama", {**DECODER, "pad_token_id": None, "bos_token_id": None,
                                               "eos_token_id": None}, pad=None, eos=None, ends=False),
    "qwen2": Case("qwen2", {**DECODER, **IDS}),
    "mistral": Case("mistral", {**DECODER, **IDS}),
    "gemma": Case("gemma", {**DECODER, **IDS}),
    "qwen3_moe": Case("qwen3_moe", {**DECODER, **IDS, "num_experts": 4, "num_experts_per_tok": 2,
                                    "moe_intermediate_size": 16, "decoder_sparse_step": 1}),
    "mixtral": Case("mixtral", {**DECODER, **IDS, "num_local_experts": 4}),
    "modernbert": Case("modernbert", {**ENCODER, **IDS, "cls_token_id": 2, "sep_token_id": 3}),
    "bart": Case("bart", {**SEQ, **IDS, "decoder_start_token_id": 3, "forced_eos_token_id": 3}),
    "bart without a pad in the tokenizer": Case("bart", {**SEQ, **IDS, "decoder_start_token_id": 3}, pad=None),
    "t5": Case("t5", {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2,
                      "vocab_size": SIZE, **IDS, "decoder_start_token_id": 0}),
    "opt": Case("opt", {"hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                        "word_embed_proj_dim": 16, "max_position_embeddings": 40, "vocab_size": SIZE, **IDS}),
    "gpt_neox": Case("gpt_neox", {**ENCODER, **IDS, "pad_token_id": None}, pad=None, ends=False),
    "falcon": Case("falcon", {**ENCODER, **IDS, "pad_token_id": None, "alibi": True}, pad=None, ends=False),
    "bloom": Case("bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2, "vocab_size": SIZE, **IDS}),
    "phi": Case("phi", {**ENCODER, **IDS}, pad=None),
    "xlnet": Case("xlnet", {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32, "vocab_size": SIZE, **IDS}),
    "sharded": Case("bert", BERT, shard="6KB"),
    "five labels": Case("bert", BERT, labels=5, saved=2),
    "half precision and five labels": Case("qwen2", {**DECODER, **IDS}, labels=5, saved=2, dtype=torch.bfloat16),
    "bert without pooler": Case("bert", BERT, body=AutoModelForMaskedLM),
    "bert from the bare model": Case("bert", BERT, body=AutoModel),
    "gpt2 from its language model": Case("gpt2", {**GPT, **IDS}, body=AutoModel, ends=False),
}  # fmt: skip


def save(case: Case, folder: Path) -> Path:
    """Save a model of random weights with its tokenizer."""
    tokenizer(case).save_pretrained(folder)
    torch.manual_seed(1)
    config = AutoConfig.for_model(case.kind, **case.values, num_labels=case.saved or case.labels)
    model = (case.body or AutoModelForSequenceClassification).from_config(config)
    for parameter in model.parameters():  # far from symmetric, so that nothing cancels
        torch.nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.3)
    model.to(case.dtype).save_pretrained(folder, **({"max_shard_size": case.shard} if case.shard else {}))
    return folder


def tokenizer(case: Case) -> PreTrainedTokenizerFast:
    """Make a tokenizer of some words."""
    words = Tokenizer(WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS])}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    end = " </s>" if case.ends and case.eos else ""
    words.post_processor = TemplateProcessing(single=f"<s> $A{end}", special_tokens=[("<s>", 2), ("</s>", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>",
        **({"pad_token": case.pad} if case.pad else {}), **({"eos_token": case.eos} if case.eos else {}),
    )  # fmt: skip


def write_texts(path: Path, labels: int, rows: int = 24) -> Path:
    """Write texts of very different lengths, with unknown words at some ends."""
    draw = random.Random(0)
    lines = ["text,label"]
    for i in range(rows * labels):
        words = [draw.choice(WORDS) for _ in range(draw.choice([1, 3, 6, 12, 20]))]
        lines.append(f"w{i % 40} {' '.join(words)} {draw.choice(['nice', 'unheard'])} n{i},{i % labels}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
