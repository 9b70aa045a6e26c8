"""What is exported says what the adapter says: in PEFT, to a server that knows one rank, and merged into the base."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import tiny_bench
import tiny_images
import tiny_language
import tiny_pairs
import torch
from safetensors.torch import load_file
from thorough import later, later_but
from torch import nn

from rankexp.export.measured import said_by
from rankexp.export.merged import write_merged
from rankexp.export.peft import write_peft
from rankexp.export.serving import ALLOWED, write_serving
from rankexp.export.target import Target
from rankexp.lora.dora import DoRALayer
from rankexp.lora.inject import inject
from rankexp.lora.layer import LoRALayer, lora_layers
from rankexp.lora.peft_format import save_adapter
from rankexp.option_errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of transformers and PEFT, about what they read

CPU = torch.device("cpu")
WRITERS = ("llama", "gpt2", "gemma3", "qwen3_moe", "opt", "t5", "bart")
CASES = ("bert", *WRITERS, "resnet", "vit", "convnext")


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("bench")
            home = next((one for one in (tiny_language, tiny_pairs, tiny_images) if name in one.MODELS), None)
            bench = tiny_bench.make_bench(folder) if home is None else home.make_bench(folder, name)
            bench.base.build(bench.data.objective.kind).save_pretrained(folder / "base")
            made[name] = replace(bench, base=replace(bench.base, loads_from=str(folder / "base")))
        return made[name]

    return get


def adapter(bench, folder, *, scaling="standard", kind=LoRALayer, targets="all-layers", rank=None):
    """Save an adapter of several ranks and alphas, none at all in some layers, that has learned something."""
    model = bench.base.build(bench.data.objective.kind)
    names = list(bench.shapes(targets))
    ranks = {name: rank or (1, 3, 0, 2)[i % 4] for i, name in enumerate(names)}
    ranks = {name: rank for name, rank in ranks.items() if rank}
    alphas = {name: (8.0, 3.0, 16.0)[i % 3] for i, name in enumerate(ranks)}
    inject(model, ranks, alpha=alphas, scaling=scaling, seed=0, kind=kind)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in lora_layers(model).values():
            layer.lora_A.normal_(0, 0.2, generator=draw)
            layer.lora_B.normal_(0, 0.2, generator=draw)
    save_adapter(
        model, folder, base_model_name_or_path="elsewhere", modules_to_save=bench.saved,
        task_type=bench.data.objective.kind.peft_type,
    )  # fmt: skip
    return folder


def target(bench, tmp_path, **how):
    out = tmp_path / "out"
    out.mkdir()
    return Target("mine", adapter(bench, tmp_path / "adapter", **how), bench.base, bench.data, CPU, out)


def check(one, model, tolerance=1e-5):
    wanted, found = said_by(one.adapted(), one.base, one.data), said_by(model.eval(), one.base, one.data)
    bare = said_by(one.bare(), one.base, one.data)
    assert wanted.apart(bare) > 1e-2, "the adapter says something"
    assert found.apart(wanted) <= tolerance * max(1.0, float(wanted.logits.abs().max()))
    assert found.scores == pytest.approx(wanted.scores, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("scaling", [later("standard"), "rslora"])
@pytest.mark.parametrize("name", later_but({"bert", "gpt2", "resnet"}, CASES))
def test_pefts_format_loads_as_it_stands_and_comes_back(benches, tmp_path, name, scaling):
    from peft import PeftConfig, PeftModel

    bench = benches(name)
    one = target(bench, tmp_path, scaling=scaling)
    check(one, write_peft(one).read())
    kind = bench.data.objective.kind
    named = PeftConfig.from_pretrained(one.folder).base_model_name_or_path
    base = kind.auto.from_pretrained(named, **kind.options)
    loaded = PeftModel.from_pretrained(base, one.folder)
    check(one, loaded)
    loaded.save_pretrained(tmp_path / "again")
    back = replace(one, adapter=tmp_path / "again", folder=tmp_path / "merged")
    back.folder.mkdir()
    check(one, back.adapted())
    check(one, write_merged(back).read())


@pytest.mark.parametrize("name", later_but({"bert", "t5"}, CASES))
def test_merged_it_is_a_folder_of_transformers(benches, tmp_path, name):
    bench = benches(name)
    one = target(bench, tmp_path)
    written = write_merged(one)
    check(one, written.read())
    kind = bench.data.objective.kind
    check(one, kind.auto.from_pretrained(one.folder))
    config = json.loads((one.folder / "config.json").read_text())
    labels = getattr(bench.data.objective, "labels", ())
    if labels:
        assert list(config["id2label"].values()) == list(map(str, labels))


def read_literally(model, folder):
    """Read an adapter as a server does that knows ``r``, ``lora_alpha`` and ``use_rslora`` only."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    tensors = load_file(folder / "adapter_model.safetensors")
    names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
    for name in names:
        a, b = (tensors[f"base_model.model.{name}.lora_{factor}.weight"] for factor in "AB")
        assert (len(a), b.shape[1]) == (config["r"], config["r"])
        layer = model.get_submodule(name)
        update = scale * b @ a
        layer.weight = nn.Parameter(layer.weight + (update.T if type(layer).__name__ == "Conv1D" else update))
    return model


@pytest.mark.parametrize("scaling", [later("standard"), "rslora"])
@pytest.mark.parametrize("name", later_but({"gpt2", "llama"}, WRITERS))
def test_a_server_that_knows_one_rank_says_the_same(benches, tmp_path, name, scaling):
    one = target(benches(name), tmp_path, scaling=scaling, targets="all-linear")
    written = write_serving(one)
    check(one, read_literally(one.bare(), one.folder))
    check(one, written.read())
    assert "--max-lora-rank 8 " in written.use
    assert json.loads((one.folder / "adapter_config.json").read_text())["r"] == 3


@pytest.mark.parametrize(("rank", "most"), [(1, 1), (9, 16)])
def test_the_servers_flag_is_the_smallest_that_holds_it(benches, tmp_path, rank, most):
    one = target(benches("llama"), tmp_path, rank=rank, targets="all-linear")
    assert f"--max-lora-rank {most} " in write_serving(one).use
    assert most in ALLOWED


def test_what_a_server_does_not_take_is_refused_with_the_reason(benches, tmp_path):
    for name, how, why in (
        ("bert", {}, "classifier whole"),
        ("resnet", {}, "brings"),
        ("llama", {"kind": DoRALayer, "targets": "all-linear"}, "it is DoRA"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        with pytest.raises(ConfigError, match=why):
            write_serving(target(benches(name), folder, **how))


def test_a_merged_model_of_tied_tables_keeps_apart_what_is_apart(benches, tmp_path):
    """An update of the table is none of the output layer that shares its weight."""
    bench = benches("gpt2")
    one = target(bench, tmp_path, targets=["wte", "c_attn"])
    check(one, write_merged(one).read())
    assert not json.loads((one.folder / "config.json").read_text())["tie_word_embeddings"]
