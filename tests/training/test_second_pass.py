"""The interface of objectives carries one that needs a second forward pass: direct preference optimisation.

Rafailov et al. 2023 (arXiv 2305.18290), equation 7: the reference model is the base, without the adapter that trains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from test_language import in_float64, make_spec, steps_of
from tiny_language import make_base
from torch import Tensor, nn
from torch.nn import functional

from rankexp.lora.layer import LoRALayer
from rankexp.lora.pack import PackedLoRALayer
from rankexp.metrics import LOSS, Metric
from rankexp.models.kinds import CAUSAL
from rankexp.objectives.base import Batch, Objective
from rankexp.objectives.language import LanguageModelling
from rankexp.objectives.token_losses import IGNORED
from rankexp.objectives.tokens import padded
from rankexp.record.trials import TrialStore
from rankexp.tasks.base import TaskData
from rankexp.tasks.examples import Examples, Targets
from rankexp.training.bench import Bench
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial

BETA = 0.5


@dataclass(frozen=True)
class Pairs(Examples):
    """Two answers to one prompt, the first of which is preferred."""

    chosen: tuple[Any, ...]
    rejected: tuple[Any, ...]

    @property
    def sizes(self):
        return np.array([len(a) + len(b) for a, b in zip(self.chosen, self.rejected, strict=True)], dtype=np.int64)

    @property
    def token_rows(self):
        return tuple(zip(self.chosen, self.rejected, strict=True))

    def content(self):
        return [self.example_ids.tolist(), [a.tolist() for a in (*self.chosen, *self.rejected)]]


@contextmanager
def bare(model: nn.Module) -> Iterator[None]:
    """Let a model compute as if it carried no adapter, of rankexp or of PEFT."""
    if hasattr(model, "disable_adapter"):
        with model.disable_adapter():
            yield
        return
    layers = [m for m in model.modules() if isinstance(m, (LoRALayer, PackedLoRALayer))]
    for layer in layers:
        layer.forward = layer.base.forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class Preference(Objective[Pairs]):
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("preferred", "point", scale=100, decimals=2, chance=0.5), LOSS)
    kind = CAUSAL

    def facts(self):
        return {"beta": BETA}

    def collate(self, examples, slots, padding, device):
        rows = [tokens for pair in zip(examples.chosen, examples.rejected, strict=True) for tokens in pair]
        learned = tuple(np.arange(len(tokens)) >= 3 for tokens in rows)
        ids = np.repeat(examples.example_ids, 2)
        flat = Targets(ids, ids, tuple(rows), learned)
        labels = [np.where(some, tokens, IGNORED) for some, tokens in zip(learned, rows, strict=True)]
        doubled = [np.stack([2 * index, 2 * index + 1], axis=1).ravel() for index in slots]
        batch = padded(flat, doubled, padding, device, labels, np.ones(len(rows)))
        return replace(batch, weights=torch.ones(sum(map(len, slots)), device=device))

    def losses(self, model, batch):
        return -functional.logsigmoid(self._margins(model, batch))

    def scores(self, model, batch):
        margins = self._margins(model, batch)
        return {"preferred": margins > 0, "loss": -functional.logsigmoid(margins)}

    def answers(self, model, batch):
        return self._margins(model, batch)[:, None]

    def _margins(self, model: nn.Module, batch: Batch) -> Tensor:
        with bare(model), torch.no_grad():
            reference = self._log_probabilities(model, batch)
        gains = self._log_probabilities(model, batch) - reference
        return BETA * (gains[::2] - gains[1::2])

    def _log_probabilities(self, model: nn.Module, batch: Batch) -> Tensor:
        counts = (batch.labels != IGNORED).sum(1)
        return -counts * LanguageModelling().losses(model, replace(batch, weights=counts))


def pairs(count: int, seed: int) -> Pairs:
    """Prompts of three tokens; the preferred answer counts on, the other one backwards, and they are of unequal length."""
    draw = np.random.default_rng(seed)
    chosen, rejected = [], []
    for _ in range(count):
        prompt = draw.integers(40, 200, 3)
        up, down = draw.integers(2, 6, 2)
        chosen.append(np.concatenate([prompt, prompt[-1] + np.arange(1, up + 1)]))
        rejected.append(np.concatenate([prompt, prompt[-1] - np.arange(1, down + 1)]))
    ids = np.array([f"{seed}-{i}" for i in range(count)])
    return Pairs(ids, ids, tuple(chosen), tuple(rejected))


@pytest.fixture(scope="module")
def bench() -> Bench:
    splits = {name: pairs(96, seed) for seed, name in enumerate(("train", "tune", "decide", "test"))}
    return Bench.load(make_base(), TaskData("pairs", splits, Preference()), torch.device("cpu"))


def test_before_a_step_no_answer_is_preferred(bench):
    with bench.pack.holding(bench.adapter(make_spec(bench))) as model:
        found = bench.data.objective.losses(model, bench.collator(bench.data.splits["tune"])(np.arange(8)))
    torch.testing.assert_close(found, torch.full((8,), math.log(2.0)))


@pytest.mark.slow
def test_a_pack_of_mixed_slots_is_each_of_them_alone(bench):
    bench = in_float64(bench)
    specs = [make_spec(bench, rank, seed=seed, steps=4) for rank, seed in ((1, 0), (2, 1), (4, 0), (8, 2))]
    packed, alone = steps_of(bench, specs, 4), [steps_of(bench, [spec], 1)[0] for spec in specs]
    for one, other in zip(packed, alone, strict=True):
        for mine, theirs in zip(one.history, other.history, strict=True):
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-9)
    assert len({slot.history[-1]["loss"] for slot in alone}) == len(specs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_it_learns_is_recorded_and_read_by_peft(bench, tmp_path):
    from peft import PeftModel

    trial = train_trial(bench, make_spec(bench, steps=40), TrialStore(tmp_path))
    recorded = trial.scores("decide")
    assert set(recorded.values) == {"preferred", "loss"}
    assert recorded.mean("preferred") > 0.7
    assert recorded.mean("loss") < math.log(2.0) - 0.05
    model = PeftModel.from_pretrained(bench.base.build(CAUSAL), trial.adapter).eval()
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32")
    np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=1e-4, atol=1e-5)
