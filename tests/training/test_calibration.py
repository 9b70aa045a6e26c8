"""What layers are given on some examples: against the rows themselves, without padding, and the same every time."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_bench import make_spec

from rankexp.lora.pack import Pack
from rankexp.training.probes.calibration import EXAMPLES, Calibration

LAYERS = ["bert.encoder.layer.0.attention.self.query", "bert.encoder.layer.1.output.dense", "bert.pooler.dense"]


def calibration(bench, **changes):
    return replace(Calibration(bench.pack, bench.collator(bench.data.splits["train"])), **changes)


def rows_of(bench, name):
    """The inputs of a layer, an example at a time, so that nothing is padded."""
    split, found = bench.data.splits["train"].sample(EXAMPLES), []
    hook = bench.model.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs: found.append(inputs[0].detach().reshape(-1, inputs[0].shape[-1]))
    )
    with torch.no_grad():
        for tokens in split.tokens:
            bench.model(input_ids=torch.as_tensor(np.asarray(tokens, dtype=np.int64))[None])
    hook.remove()
    return torch.cat(found).double()


@pytest.mark.parametrize("name", LAYERS)
def test_moments_and_directions_are_those_of_the_stacked_rows(bench, name):
    x = rows_of(bench, name)
    expected = EXAMPLES if "pooler" in name else int(bench.data.splits["train"].sample(EXAMPLES).sizes.sum())
    assert len(x) == expected
    moment = calibration(bench).moments([name])[name]
    torch.testing.assert_close(moment, x.T @ x / len(x), rtol=0, atol=1e-5 * float(moment.abs().max()))
    rank = 3
    rows = calibration(bench).directions({name: rank})[name]
    values, right = torch.linalg.svd(x, full_matrices=False)[1:]
    assert values[rank - 1] > 1.02 * values[rank]  # or the space would not be determined
    torch.testing.assert_close(rows.T @ rows, right[:rank].T @ right[:rank], rtol=0, atol=1e-6)


def test_adapters_from_eva_hold_the_directions_and_start_as_the_base(bench):
    spec = make_spec(bench, initialisation="eva", rank=3)
    adapter = bench.adapter(spec)
    expected = calibration(bench).directions(spec.rank_map)
    plain = bench.adapter(make_spec(bench, rank=3))
    for name, layer in adapter.layers.items():
        torch.testing.assert_close(layer.lora_A.detach(), expected[name].float(), rtol=0, atol=0)
        torch.testing.assert_close(layer.lora_A @ layer.lora_A.T, torch.eye(3), rtol=0, atol=1e-6)
        assert not torch.equal(layer.lora_A, plain.layers[name].lora_A)
        assert not layer.lora_B.any()
    other_seed = bench.adapter(replace(spec, seed=5))
    assert all(torch.equal(layer.lora_A, other_seed.layers[name].lora_A) for name, layer in adapter.layers.items())


def test_what_was_kept_is_what_would_be_measured(bench, monkeypatch):
    kept = calibration(bench)
    few, many, again = (kept.directions({LAYERS[0]: rank})[LAYERS[0]] for rank in (2, 8, 2))
    assert few.shape == (2, 16)
    assert torch.equal(few, many[:2])
    assert torch.equal(few, again)
    assert torch.equal(many, calibration(bench).directions({LAYERS[0]: 8})[LAYERS[0]])
    monkeypatch.setattr(kept, "moments", lambda names: pytest.fail(f"{names} were measured again"))
    assert kept.directions({LAYERS[0]: 8})[LAYERS[0]].shape == (8, 16)


def test_the_model_is_measured_bare_and_left_as_it_was(bench):
    adapter = bench.adapter(make_spec(bench))
    for layer in adapter.layers.values():
        torch.nn.init.ones_(layer.lora_B)
    bare = calibration(bench).moments(LAYERS)
    with bench.pack.holding(adapter):
        held = calibration(bench).moments(LAYERS)
        assert bench.pack.held == (adapter,)
    assert bench.pack.held == ()
    assert all(torch.equal(bare[name], held[name]) for name in LAYERS)
    assert not any(module._forward_pre_hooks for module in bench.model.modules())


def test_a_failure_leaves_no_hooks(bench):
    broken = copy.deepcopy(bench.model)
    broken.classifier.forward = lambda *_: 1 / 0
    with pytest.raises(ZeroDivisionError):
        calibration(bench, pack=Pack(broken)).moments(LAYERS)
    assert not any(module._forward_pre_hooks for module in broken.modules())
