"""How a model's batches are filled: so that a text scores in a batch as it scores alone.

That is a law here, tried for every model on its study's own texts. A model breaks it where it finds the last token by
another padding token than the one that fills its batches, reads the other end of the row, counts padding as positions,
or has no attention mask. Whoever uses the trained adapter with one text at a time gets the recorded scores only if it
holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rankexp.lora.pack import Adapter, Pack
from rankexp.models.base import Padding
from rankexp.models.beside import trained_whole
from rankexp.models.loading import loading_of, pad_of, set_pad, token_embeddings
from rankexp.objectives.base import Objective
from rankexp.option_errors import ConfigError, reason
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Examples, joined

TOLERANCE = 1e-5
"""Of the logits' scale, in float32, by which a text may score otherwise in a batch."""

_ROUNDING = 4.0
"""Times what the same texts without padding differ by in another shape, where that is more: large models round more."""

_PROBE_LENGTH = 256
"""Tokens of the longest text that the law is tried on, if there are shorter ones."""

_RAISED = (RuntimeError, ValueError, TypeError, LookupError)
"""What a model raises that cannot take a batch."""

Ids = NDArray[np.int32]


def find_padding(model: nn.Module, data: TaskData, usual: int) -> Padding:
    """Return the first padding for which the law holds: the usual one, if it does.

    Args:
        model: A bare model on the CPU in float32; afterwards it pools by the token that is found, unless its
            configuration names one.
        data: All examples, and what is asked of the model.
        usual: The token that the tokenizer pads with.

    Raises:
        ConfigError: There is none.
    """
    examples = joined(list(data.splits.values()))
    rows = list(chain.from_iterable(examples.token_rows))
    if not rows:  # nothing is filled
        _check_takes(model, data, Padding(usual))
        return Padding(usual)
    own, failed = _own_pad(model), list[str]()
    with Pack(model).holding(Adapter({}, trained_whole(model, 0))) as held:
        for padding in _candidates(held, rows, usual):
            if not (why := _failure(held, examples, data.objective, padding)):
                set_pad(model, padding.token if own is None else own)
                return padding
            failed.append(why)
    raise ConfigError(
        f"the model scores a text differently beside a longer one than alone, whatever fills the batch ({failed[0]});"
        " it cannot be trained in batches, so take another model."
    )


def _check_takes(model: nn.Module, data: TaskData, padding: Padding) -> None:
    """Refuse examples that the model cannot compute, such as images of a size that is not its own."""
    examples, objective = data.splits["train"], data.objective
    batch = objective.collate(examples, [np.arange(1)], padding, torch.device("cpu"))
    try:
        with Pack(model).holding(Adapter({}, trained_whole(model, 0))) as held, torch.no_grad():
            objective.answers(held, batch)
    except _RAISED as error:
        shapes = ", ".join(f"{name} of shape {tuple(value.shape)[1:]}" for name, value in batch.inputs.items())
        raise ConfigError(f"the model cannot take {shapes}: {reason(error)}.") from None


def check_fits(model: nn.Module, data: TaskData) -> None:
    """Refuse texts that hold tokens, or are at places, for which the model has no embedding.

    Raises:
        ConfigError: There is one; names the first.
    """
    table, places = token_embeddings(model), positions(model)
    known = len(table.get_parameter("weight")) if table is not None else None
    for name, example, ids in _rows(data):
        if known is not None and (int(ids.max()) >= known or int(ids.min()) < 0):
            raise ConfigError(
                f"example {example} of {name} has token id {int(ids.max())}, and the model has embeddings for 0 to"
                f" {known - 1}; its tokenizer was given tokens that its weights lack, so resize the model's"
                " embeddings and save both, or take the tokenizer that belongs to it."
            )
    texts = max((len(ids) for _, _, ids in _rows(data)), default=0)
    if places is not None and texts > places:
        raise ConfigError(
            f"the longest text has {texts} tokens and the model takes {places}; lower task.max_length to {places}."
        )
    written = max(map(data.objective.places, data.scored.values()))
    if places is not None and written > places:
        raise ConfigError(
            f"the longest prompt takes {written} tokens with what may be written after it, and the model takes "
            f"{places}; lower task.max_new_tokens, or leave out longer rows."
        )


def _rows(data: TaskData) -> Iterator[tuple[str, str, Ids]]:
    """Yield every row of tokens, with the split and the example that it is of."""
    for name, split in data.scored.items():
        for example, rows in zip(split.example_ids.tolist(), split.token_rows, strict=True):
            for ids in rows:
                yield name, example, ids


def positions(model: nn.Module) -> int | None:
    """Return how many tokens a text may have, or None where nothing limits it.

    A table of positions that keeps a place for padding begins after it, as RoBERTa's does.
    """
    stated = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in ("position_embeddings", "embed_positions")
    ]
    offset = next((t.padding_idx + 1 for t in tables if t.padding_idx is not None and type(t) is nn.Embedding), 0)
    relative = getattr(getattr(model, "config", None), "relative_attention", False) and not tables
    return stated - offset if isinstance(stated, int) and stated > 0 and not relative else None


def _own_pad(model: nn.Module) -> int | None:
    """Return the padding token of the model's own configuration, if that is a token."""
    own = loading_of(model).pad_token_id
    return own if own is not None and own in _tokens(model) else None


def _tokens(model: nn.Module) -> range:
    table = token_embeddings(model)
    return range(len(table.get_parameter("weight")) if table is not None else 1 << 31)


def _candidates(model: nn.Module, texts: Sequence[Ids], usual: int) -> Iterator[Padding]:
    """Yield what may fill batches, the usual first, then the model's own, then a token that no text ends in."""
    known = _tokens(model)
    tokens = dict.fromkeys(token for token in (usual, _own_pad(model)) if token is not None and token in known)
    yield from (Padding(token) for token in tokens)
    if (free := _free_token(texts, known)) is not None:
        tokens[free] = None
        yield Padding(free)
    yield from (Padding(token, "left") for token in tokens)


def _free_token(texts: Sequence[Ids], known: range) -> int | None:
    used, last = set(np.unique(np.concatenate(texts)).tolist()), {int(ids[-1]) for ids in texts}
    nowhere = next((token for token in known if token not in used), None)
    return nowhere if nowhere is not None else next((token for token in known if token not in last), None)


@torch.no_grad()
def _failure(model: nn.Module, examples: Examples, objective: Objective[Any], padding: Padding) -> str:
    """Say why the law does not hold, or nothing where it does."""
    probes = _probes(examples.token_rows, {padding.token, *_special(model)})

    def answers(*places: int) -> Tensor:
        batch = objective.collate(examples, [np.array(places)], padding, torch.device("cpu"))
        return objective.answers(model, batch).float()

    own, held = _own_pad(model), pad_of(model)
    try:
        with _pooling_by(model, loading_of(model).pad_token_id):
            alone = torch.cat([answers(place) for place in probes])
        with _pooling_by(model, padding.token if own is None else own):
            beside = answers(*probes)
            again = torch.cat([answers(place, place, place)[:1] for place in probes])
    except _RAISED as error:
        return reason(error)
    finally:
        set_pad(model, held)
    scale = float(alone.abs().max())
    rounding = float((again - alone).abs().max())
    found = float((beside - alone).abs().max())
    if found <= max(TOLERANCE * scale, min(_ROUNDING * rounding, 1e-3 * scale)):
        return ""
    return f"by {found / scale:.2g} of the logits' scale"


def _probes(texts: Sequence[Sequence[Ids]], special: set[int]) -> list[int]:
    """Find short and long texts, and those that end in special tokens or hold most or fewest of them; give places."""
    lengths = np.array([max(map(len, rows)) for rows in texts])
    order = np.argsort(lengths, kind="stable")
    within = order[lengths[order] <= max(_PROBE_LENGTH, 2 * int(lengths.min()))]
    taken = [*within[:3], *within[-3:], within[len(within) // 2]]
    if lengths[within[-1]] == lengths[within[0]] and len(order) > len(within):
        taken.append(order[len(within)])
    for token in sorted(special):
        counts = np.array([sum(int((ids == token).sum()) for ids in texts[i]) for i in within])
        ending = [i for i in within if any(ids[-1] == token for ids in texts[i])]
        taken += [within[counts.argmin()], within[counts.argmax()], *ending[:2]]
    return list(dict.fromkeys(int(i) for i in taken))


def _special(model: nn.Module) -> set[int]:
    config = getattr(model, "config", None)
    found = [getattr(config, f"{name}_token_id", None) for name in ("pad", "eos", "bos", "sep", "cls")]
    return {token for token in found if isinstance(token, int)}


@contextmanager
def _pooling_by(model: nn.Module, token: int | None) -> Iterator[None]:
    before = pad_of(model)
    set_pad(model, token)
    try:
        yield
    finally:
        set_pad(model, before)
