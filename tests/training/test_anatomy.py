"""What of a model LoRA adapts, what that costs and what is left, before any data are read."""

from __future__ import annotations

import pytest
import torch
from tiny_bench import make_base as make_bert
from tiny_language import MODELS, make_base, placed

from rankexp.lora.inject import inject, trainable_parameters
from rankexp.lora.layer import lora_layers
from rankexp.models.base import find_model
from rankexp.models.kinds import CAUSAL, classifier
from rankexp.training.anatomy import anatomy_of, kept_bytes
from rankexp.training.bench import prepare
from rankexp.training.reach import target_layers


def row_of(length):
    row = torch.ones((1, length), dtype=torch.int64)
    return {"input_ids": row, "attention_mask": torch.ones_like(row)}


def anatomy(name="llama", targets="all-linear", ranks=(2, 4, 8), length=16):
    model = (make_bert().build(classifier(3)) if name == "bert" else make_base(name).build(CAUSAL)).requires_grad_(
        False
    )
    return model, anatomy_of(model, targets, list(ranks), length)


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3_moe", "bert"])
def test_a_rank_costs_what_injecting_it_adds_and_the_model_is_left_as_it_was(name):
    model, found = anatomy(name)
    assert not lora_layers(model)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    for cost in found.costs:
        inject(model, dict.fromkeys(targets_of(model, found), cost.rank), alpha=1.0, seed=0)
        added = sum(p.numel() for key, p in trainable_parameters(model).items() if "lora_" in key)
        assert cost.parameters == added
        assert (cost.file, cost.trained) == (4 * added, 16 * (added + found.head))
        model = make_bert().build(classifier(3)) if name == "bert" else make_base(name).build(CAUSAL)


def targets_of(model, found):
    kinds = {one.name for one in found.adapted}
    names = {
        name: ".".join(part for part in name.split(".") if not part.isdecimal()) for name, _ in model.named_modules()
    }
    return [name for name, kind in names.items() if kind in kinds]


def why(found, name):
    (left,) = (left for left in found.left if left.kind.name.endswith(name))
    return left.why


def test_what_is_left_out_is_said_with_the_reason():
    _, llama = anatomy("llama")
    assert why(llama, "lm_head") == "the output layer"
    assert "table" in why(llama, "embed_tokens")
    model, tied = anatomy("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert "is the table of embeddings itself" in why(tied, "lm_head")
    assert "tied to the output layer" in why(tied, "wte")
    _, mixture = anatomy("qwen3_moe")
    assert "bare parameter" in why(mixture, "experts.gate_up_proj")
    _, some = anatomy("llama", ["q_proj"])
    assert "lora.target_modules" in why(some, "v_proj")
    assert [one.name for one in some.adapted] == ["model.layers.self_attn.q_proj"]
    _, bert = anatomy("bert")
    assert bert.head > 0
    assert not any("classifier" in left.kind.name for left in bert.left)


def test_ranks_that_a_layer_cannot_hold_are_left_out_and_targets_that_select_nothing_refused():
    _, found = anatomy("llama", ranks=(8, 16, 17, 32))
    assert [cost.rank for cost in found.costs] == [8, 16]
    with pytest.raises(ValueError, match="matches no layer"):
        anatomy("llama", ["qurry"])


def test_what_a_row_keeps_is_what_autograd_keeps():
    model = torch.nn.Sequential(torch.nn.Linear(8, 4, bias=False)).requires_grad_(False)

    class Whole(torch.nn.Module):
        """Takes tokens as a language model does, each as a row of eight numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def get_decoder(self):
            return self

        def forward(self, input_ids, attention_mask):
            return self.inner(input_ids.float()[..., None].expand(*input_ids.shape, 8).contiguous()).tanh()

    kept = kept_bytes(Whole(), {"inner.0": 2}, row_of(10))
    inputs, hidden, answers = 10 * 8, 10 * 2, 10 * 4
    assert kept == 4 * (inputs + hidden + answers)  # of A, of B, and of tanh


def test_blocks_that_are_computed_again_keep_what_goes_into_them_and_all_of_one():
    model = make_base("llama").build(CAUSAL).requires_grad_(False)
    prepare(model, torch.device("cpu"))
    ranks = dict.fromkeys(target_layers(model, "all-linear", ()), 2)
    whole = kept_bytes(model, ranks, row_of(10))
    assert kept_bytes(model, ranks, row_of(10), recompute=True) == whole // 2 + 2 * 10 * 32 * 4


def test_weights_in_bfloat16_take_half_the_memory():
    found = {}
    for dtype in ("float32", "bfloat16"):
        base = find_model(name="m", source="config", path=None, architecture=MODELS["llama"], dtype=dtype)
        model = placed(base).requires_grad_(False)
        prepare(model, torch.device("cpu"))
        found[dtype] = anatomy_of(model, "all-linear", [2, 4], 16)
    assert found["bfloat16"].weights * 2 == found["float32"].weights == 4 * found["float32"].parameters
    assert found["bfloat16"].costs == found["float32"].costs, "what is trained is float32 in either"
    assert found["bfloat16"].activations < found["float32"].activations
