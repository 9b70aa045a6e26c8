"""Blocks that are computed again give the same bits, and keep less."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_language
import torch
from thorough import later_but
from tiny_bench import digests, make_bench, make_spec
from torch import nn

from rankexp.lora.pack import Pack
from rankexp.models.base import find_model
from rankexp.models.kinds import classifier
from rankexp.models.loading import blocks_of
from rankexp.option_errors import ConfigError
from rankexp.record.trials import TrialStore
from rankexp.training.bench import Bench
from rankexp.training.recompute import recomputable, recompute_blocks
from rankexp.training.trial import train_trial, train_trials

pytestmark = pytest.mark.slow


def recomputed(bench: Bench) -> Bench:
    """The same bench, whose blocks are computed again; a copy of a copy."""
    model = copy.deepcopy(bench.model)
    recompute_blocks(model)
    return replace(bench, pack=Pack(model)).copy()


def counted(bench: Bench) -> list[int]:
    """Count the forward passes of the model's first block."""
    counts = [0]

    def count(*_: object) -> None:
        counts[0] += 1

    inner = next(child for child in blocks_of(bench.model)[1][0].children() if any(True for _ in child.children()))
    inner.register_forward_hook(count)
    return counts


@pytest.mark.parametrize("name", later_but({"llama", "opt"}, ["bert", "llama", "gpt2", "opt", "qwen3_moe"]))
def test_a_trial_has_the_same_bits_in_every_file(tmp_path: Path, name: str) -> None:
    bench = make_bench(tmp_path) if name == "bert" else tiny_language.make_bench(tmp_path, name)
    again = recomputed(bench)
    passes, twice = counted(bench), counted(again)
    spec = make_spec(bench, rank=2, dropout=0.3, learning_rate=3e-3)
    one, other = (train_trial(b, spec, TrialStore(tmp_path / str(i))) for i, b in enumerate((bench, again)))
    assert one.result.status == "completed"
    assert digests(one) == digests(other)
    assert twice[0] == passes[0] + spec.steps, "the block was computed again in each step, and in no scoring"


@pytest.mark.parametrize("method", ["dora", "adalora", "full", "subspace", "head"])
def test_whatever_is_trained_has_the_same_bits(tmp_path: Path, method: str) -> None:
    bench = make_bench(tmp_path)
    spec = make_spec(bench, method, **({"dropout": 0.3} if method == "dora" else {}))
    one, other = (train_trial(b, spec, TrialStore(tmp_path / str(i))) for i, b in enumerate((bench, recomputed(bench))))
    assert digests(one) == digests(other)


def test_so_has_a_pack_whose_slots_drop_inputs(tmp_path: Path) -> None:
    bench = tiny_language.make_bench(tmp_path)
    specs = [make_spec(bench, rank=rank, dropout=drop, seed=rank) for rank, drop in ((1, 0.3), (4, 0.0), (8, 0.1))]
    found = []
    for i, each in enumerate((bench, recomputed(bench))):
        store, waiting = TrialStore(tmp_path / str(i)), list(specs)
        jobs: list[object] = []

        def take(room: int, beside: object, waiting: list = waiting, jobs: list = jobs) -> list:  # type: ignore[type-arg]
            from rankexp.training.trial import _Alone

            given = [_Alone(waiting.pop(0), lambda _: None) for _ in range(min(room, len(waiting)))]
            jobs += given
            return given

        train_trials(each, take, store, 3, 3)
        found.append([digests(store.read(spec.key)) for spec in specs])
    assert found[0] == found[1]


def test_less_is_kept_for_the_backward_pass(tmp_path: Path) -> None:
    bench = tiny_language.make_bench(tmp_path)
    batch = bench.collator(bench.data.splits["train"])([*range(16)])
    kept = []
    for each in (bench, recomputed(bench)):
        sizes: dict[int, int] = {}

        def keep(tensor: torch.Tensor, sizes: dict[int, int] = sizes) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with each.pack.holding(each.adapter(make_spec(each, rank=2))) as model:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                loss = each.data.objective.losses(model, batch).sum()
            loss.backward()
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.5 * kept[0]


def test_a_base_that_would_drop_stays_as_it_is(tmp_path: Path) -> None:
    bench = tiny_language.make_bench(tmp_path, "opt")
    assert bench.model.config.dropout > 0
    again = recomputed(bench)
    assert not any(module.training for module in again.model.modules())
    assert type(blocks_of(again.model)[1][0]).__name__ == type(blocks_of(bench.model)[1][0]).__name__


def test_encoder_and_decoder_are_both_computed_again() -> None:
    sizes = {"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "encoder_attention_heads": 2}
    bart = {
        "model_type": "bart",
        "vocab_size": 60,
        "decoder_attention_heads": 2,
        "max_position_embeddings": 32,
        **sizes,
    }
    layers = {"encoder_layers": 2, "decoder_layers": 3}
    model = find_model(name="bart", source="config", path=None, architecture={**bart, **layers}).build(classifier(2))
    assert len(recomputable(model)) == 5


def test_a_model_without_blocks_says_so() -> None:
    with pytest.raises(ConfigError, match=r"gradient_checkpointing.*Linear has no list of blocks"):
        recompute_blocks(nn.Linear(2, 2))
