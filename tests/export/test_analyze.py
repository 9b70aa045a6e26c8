"""Adapters that PEFT itself trained, examined: what they use of their rank, what a cut costs, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from architectures import CASES, save, write_texts
from safetensors.torch import load_file, save_file
from thorough import later_but
from tiny import rankexp
from torch import nn

from rankexp.analysis.updates.adapter_folder import read_adapter
from rankexp.analysis.updates.squeezed_folder import write_squeezed
from rankexp.analysis.updates.used_ranks import cuts, ranks_for, used_ranks
from rankexp.cli.main import main
from rankexp.option_errors import ConfigError
from rankexp.report.adapter_page import describe, write_adapter_page

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of PEFT, about what it is given

WIDTH, LAYERS = 96, 10


class Stack(nn.Module):
    """Layers that have nothing to do with each other, each with inputs of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))

    def forward(self, x):
        return torch.stack([layer(part) for layer, part in zip(self.layers, x, strict=True)])


def stack():
    torch.manual_seed(0)
    return Stack().requires_grad_(False)


def trained_by_peft(folder, target, rank=32, steps=200, kind="LoraConfig", **how):
    """Let PEFT train an adapter of a stack on what ``target`` gives for inputs, and save it."""
    import peft

    torch.manual_seed(1)
    names = [f"layers.{i}" for i in range(LAYERS)]
    options = {"r": rank} if kind == "LoraConfig" else {"init_r": rank, "total_step": steps}
    config = getattr(peft, kind)(**options, lora_alpha=16, target_modules=names, **how)
    model = peft.get_peft_model(stack(), config)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    draw = torch.Generator().manual_seed(2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 - step / steps)
        x = torch.randn(LAYERS, 256, WIDTH, generator=draw)
        loss = (model(x) - target(x, draw)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "AdaLoraConfig":
            model.base_model.update_and_allocate(step)
    model.save_pretrained(folder)
    return model


def planted(rank=4):
    """Give what the stack would with an update of a rank in each layer."""
    base, draw = stack(), torch.Generator().manual_seed(3)
    left, right = (torch.linalg.qr(torch.randn(LAYERS, WIDTH, rank, generator=draw))[0] for _ in range(2))
    update = 2 * left @ right.mT
    return lambda x, _: base(x) + torch.einsum("loi,lbi->lbo", update, x)


def noise(x, draw):
    return torch.randn(*x.shape[:2], WIDTH, generator=draw)


@pytest.fixture(scope="module")
def of_four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    return folder, trained_by_peft(folder, planted())


def test_a_planted_rank_is_read_off_and_noise_is_none(of_four, tmp_path):
    found = [used_ranks(layer) for layer in read_adapter(of_four[0]).layers.values()]
    assert sum(used.of_energy[0] == 4 for used in found) >= 0.9 * len(found)
    assert all(used.above_noise >= 4 for used in found)
    trained_by_peft(tmp_path, noise)
    found = [used_ranks(layer) for layer in read_adapter(tmp_path).layers.values()]
    assert all(used.of_energy[0] > 16 for used in found)
    assert sum(used.above_noise for used in found) < 2 * len(found)


def test_squeezed_to_the_planted_rank_it_does_as_well(of_four, tmp_path):
    from peft import PeftModel

    folder, model = of_four
    adapter, target, draw = read_adapter(folder), planted(), torch.Generator().manual_seed(9)
    x = torch.randn(LAYERS, 512, WIDTH, generator=draw)
    losses = {}
    with torch.no_grad():
        bare = (stack()(x) - target(x, None)).square().mean()
        losses["whole"] = (model(x) - target(x, None)).square().mean()
        for rank in (2, 4):
            write_squeezed(adapter, ranks_for(adapter.layers, rank=rank), tmp_path / str(rank))
            cut = PeftModel.from_pretrained(stack(), tmp_path / str(rank))
            losses[rank] = (cut(x) - target(x, None)).square().mean()
    assert losses["whole"] < 0.02 * bare
    assert losses[4] - losses["whole"] < 0.02 * bare
    assert losses[2] > 0.2 * bare


def deltas(model):
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    return {
        name.removeprefix("base_model.model."): module.get_delta_weight("default").detach().double().numpy()
        for name, module in layers.items()
    }


HOW = {
    "plain": {},
    "rslora": {"use_rslora": True},
    "patterns": {"rank_pattern": {"layers.1": 3, "layers.2": 5}, "alpha_pattern": {"layers.1": 4, "layers.3": 2}},
    "dora": {"use_dora": True},
    "adalora": {"kind": "AdaLoraConfig", "target_r": 3, "tinit": 2, "tfinal": 4, "deltaT": 1},
}


@pytest.mark.parametrize("name", later_but({"rslora", "patterns", "adalora"}, HOW))
def test_singular_values_are_those_of_pefts_own_update(tmp_path, name):
    from peft import PeftModel

    trained_by_peft(tmp_path / "a", planted(2), rank=6, steps=12, **HOW[name])
    adapter = read_adapter(tmp_path / "a")
    model = PeftModel.from_pretrained(stack(), tmp_path / "a")
    wanted = deltas(model)
    assert set(adapter.layers) == {name for name, delta in wanted.items() if np.abs(delta).max() > 0}
    for layer in adapter.layers.values():
        values = np.linalg.svd(wanted[layer.name], compute_uv=False)[: len(layer.parts[1])]
        np.testing.assert_allclose(layer.parts[1], values, rtol=1e-4, atol=1e-6)
    write_squeezed(adapter, ranks_for(adapter.layers, rank=2), tmp_path / "cut")
    cut = PeftModel.from_pretrained(stack(), tmp_path / "cut")
    for key, delta in deltas(cut).items():
        left, values, right = np.linalg.svd(wanted[key])
        np.testing.assert_allclose(delta, left[:, :2] * values[:2] @ right[:2], atol=1e-5)


def test_a_cut_by_energy_and_by_budget(of_four):
    layers = read_adapter(of_four[0]).layers
    assert set(ranks_for(layers, share=0.9).values()) <= {3, 4, 5}
    budget = ranks_for(layers, parameters=20 * 2 * WIDTH)
    assert sum(budget.values()) == 20
    kept = {cut.rank: cut for cut in cuts(layers, [1, 4, 32])}
    assert kept[1].kept < 0.5 < 0.95 < kept[4].kept
    assert kept[32].kept == pytest.approx(1)
    assert kept[4].parameters == 4 * LAYERS * 2 * WIDTH


def test_half_precision_is_read_as_it_is(of_four, tmp_path):
    folder = of_four[0]
    (tmp_path / "adapter_config.json").write_text((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for dtype in (torch.bfloat16, torch.float16):
        save_file({key: value.to(dtype) for key, value in tensors.items()}, tmp_path / "adapter_model.safetensors")
        for name, layer in read_adapter(tmp_path).layers.items():
            kept = tensors[f"base_model.model.{name}.lora_A.weight"].to(dtype).double().numpy()
            np.testing.assert_array_equal(layer.lora_A, kept)


def other_layouts(folder):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    one = torch.ones(2, 3)
    yield "kohya", config, {"lora_unet_x.lora_down.weight": one}, "kohya's layout"
    yield "torchtune", config, {"layers.0.attn.q_proj.lora_a.weight": one}, "torchtune's layout"
    yield "lycoris", config, {"x.hada_w1_a": one}, "LyCORIS"
    yield "half", config, {"base_model.model.x.lora_A.weight": one}, "only one of the two factors of x"
    yield "nothing", config, {"x": one}, "holds no factors of LoRA"
    yield "ia3", {"peft_type": "IA3"}, {"x": one}, "peft_type 'IA3'"
    yield "prefix", {"peft_type": "PREFIX_TUNING"}, {"x": one}, "peft_type 'PREFIX_TUNING'"
    yield "list", [], {"x": one}, "peft_type None"
    both = {f"base_model.model.x.lora_{side}.weight": torch.ones(*of) for side, of in (("A", (2, 3)), ("B", (3, 2)))}
    yield "alpha", {**config, "lora_alpha": "much"}, both, "what the config says of x cannot be"
    yield "huge", {**config, "lora_alpha": 10**400}, both, "what the config says of x cannot be"
    yield "large", {**config, "lora_alpha": 1e300}, both, "too large for any update"
    yield "rank", {**config, "r": 3}, both, "its rank is 3, and the weights have 2"
    yield "listed", {**config, "alpha_pattern": ["x"]}, both, "alpha_pattern is no table of names"
    yield "slow", {**config, "alpha_pattern": {"(a+)+b": 1}}, both, "could take for ever"
    yield "long", {**config, "rank_pattern": {"a" * 600: 1}}, both, "could take for ever"
    yield "pissa", {**config, "init_lora_weights": "pissa_niter_4"}, both, "PEFT takes a part off the base"
    yield "olora", {**config, "init_lora_weights": "olora"}, both, "PEFT takes a part off the base"
    yield "biased", {**config, "lora_bias": True}, both, "sets lora_bias"
    yield "saved", {**config, "modules_to_save": 5}, both, "is no list of names"
    yield "dropout", {**config, "lora_dropout": None}, both, "for lora_dropout"
    empty = {**both, "base_model.model.x.lora_B.weight": torch.ones(3, 0)}
    yield "empty", config, empty, "are no matrices"
    yield "divides", config, {**both, "base_model.model.x.lora_B.weight": torch.ones(3, 1)}, "2 and 1 directions"
    kept = {f"base_model.model.x.lora_{side}": torch.ones(*of) for side, of in (("A", (2, 3)), ("B", (3, 2)))}
    uneven = {**kept, "base_model.model.x.lora_E": torch.ones(1, 1)}
    yield "triplets", {"peft_type": "ADALORA", "init_r": 2}, uneven, "2 directions and 1 singular values"
    yield "infinite", config, {key: value * float("inf") for key, value in both.items()}, "not finite"
    yield "uneven", config, {**both, "base_model.model.x.lora_B.weight": torch.ones(3, 5)}, "2 and 5 directions"
    yield "pattern", {**config, "alpha_pattern": {"(": 1}}, both, "cannot be"


def test_other_layouts_are_refused_by_name(tmp_path):
    for name, config, tensors, why in other_layouts(tmp_path):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(config))
        save_file(tensors, folder / "adapter_model.safetensors")
        with pytest.raises(ConfigError) as error:
            read_adapter(folder)
        assert why in str(error.value)
        assert "\n" not in str(error.value)


def one_layer(folder, name="x", rank=2, **config):
    folder.mkdir(exist_ok=True)
    draw = torch.Generator().manual_seed(0)
    shapes = {"A": (rank, 5), "B": (4, rank)}
    tensors = {
        f"base_model.model.{name}.lora_{side}.weight": torch.randn(*of, generator=draw) for side, of in shapes.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": rank, "lora_alpha": 2, **config}))
    return read_adapter(folder)


@pytest.mark.parametrize("name", ["layers.².q", "a$b$c$", "a(", "ünïcode.0.x", "a b", "x." * 40 + "q", "0"])
def test_names_of_any_characters_are_shown_and_cut(tmp_path, name):
    adapter = one_layer(tmp_path / "a", name, rank=3)
    doc = describe(adapter)
    assert [row["name"] for row in doc["layers"]] == [name]
    assert write_adapter_page(doc, tmp_path / "page").is_file()
    write_squeezed(adapter, {name: 1}, tmp_path / "cut")
    cut = read_adapter(tmp_path / "cut").layers[name]
    assert cut.rank == 1
    assert cut.parts[1][0] == pytest.approx(adapter.layers[name].parts[1][0], rel=1e-6)


def test_an_adapter_that_changes_nothing_says_so(tmp_path):
    adapter = one_layer(tmp_path / "a")
    file = tmp_path / "a/adapter_model.safetensors"
    save_file({key: 0 * value for key, value in load_file(file).items()}, file)
    assert describe(read_adapter(tmp_path / "a"))["headline"] == "It changes nothing."
    assert describe(adapter)["headline"] != "It changes nothing."


def test_the_headline_names_a_rank_between_powers_of_two(tmp_path):
    adapter = one_layer(tmp_path / "a", rank=4)
    file = tmp_path / "a/adapter_model.safetensors"
    tensors = load_file(file)
    left, right = (torch.linalg.qr(torch.randn(8, 4, generator=torch.Generator().manual_seed(i)))[0] for i in (1, 2))
    keys = sorted(tensors)
    save_file(
        {keys[0]: (torch.tensor([1.0, 1, 1, 1e-3])[:, None] * right.T).contiguous(), keys[1]: left.contiguous()}, file
    )
    assert describe(read_adapter(tmp_path / "a"))["headline"] == "3 of its 4 directions hold 99% of what it changes."
    assert adapter.method == "LoRA"


def test_encoder_and_decoder_are_shown_both(tmp_path):
    names = [f"{part}.block.0.q" for part in ("encoder", "decoder")]
    tensors = {}
    for name in names:
        one_layer(tmp_path / "one", name)
        tensors |= load_file(tmp_path / "one/adapter_model.safetensors")
    save_file(tensors, tmp_path / "one/adapter_model.safetensors")
    doc = describe(read_adapter(tmp_path / "one"))
    page = write_adapter_page(doc, tmp_path / "page").read_text()
    assert all(f"{part}.block.#.q" in page for part in ("encoder", "decoder"))


def test_files_that_are_no_adapter(tmp_path, capsys):
    (tmp_path / "mlx").mkdir()
    save_file({"layers.0.lora_a": torch.ones(3, 2)}, tmp_path / "mlx/adapters.safetensors")
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle/adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "pickle/adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch hit'\ntR.")
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/adapter_config.json").write_text('{"peft_type": "LORA"}')
    (tmp_path / "cut/adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    for name, why in (("mlx", "adapters.safetensors is there"), ("pickle", "a pickle, which is never opened"),
                      ("cut", "not a safetensors file"), ("none", "is no folder")):  # fmt: skip
        assert main(["analyze", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert why in said
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_page_and_the_cut_adapter_are_written_and_nothing_over_them(of_four, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["analyze", str(of_four[0]), "--out", str(out)]
    assert main([*words, "--energy", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "4 of its 32 directions hold 99% of what it changes." in said
    assert "squeezed" in said
    doc = json.loads((out / "adapter.json").read_text())
    assert len(doc["layers"]) == LAYERS
    assert doc["measured"] is None
    page = (out / "adapter.html").read_text()
    assert "4 of its 32 directions" in page
    assert main([*words, "--rank", "4"]) == 2
    assert "is there already, and is not written over" in capsys.readouterr().err
    assert main(words) == 0, "its own page is written again"
    for wrong in (["--rank", "0"], ["--energy", "1.5"], ["--parameters", "0"]):
        assert main(["analyze", str(of_four[0]), "--out", str(tmp_path / "x"), *wrong]) == 2
        assert wrong[0] in capsys.readouterr().err


def test_names_of_strangers_are_shown_and_do_nothing(tmp_path):
    evil = "base_model.model.<script>alert(1)</script>"
    tensors = {f"{evil}.lora_A.weight": torch.rand(2, 3), f"{evil}.lora_B.weight": torch.rand(3, 2)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "base_model_name_or_path": "<b>"}')
    page = write_adapter_page(describe(read_adapter(tmp_path)), tmp_path / "out").read_text()
    assert "<script>alert" not in page
    assert "<b>" not in page.replace("<b>EXAMINED</b>", "").replace(f"<b>{tmp_path}</b>", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A classifier of somebody, with an adapter that PEFT trained on texts of two classes."""
    import peft
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("home")
    save(CASES["bert"], folder / "model")
    write_texts(folder / "texts.csv", CASES["bert"].labels, rows=120)
    rows = [line.rsplit(",", 1) for line in (folder / "texts.csv").read_text().splitlines()[1:]]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(folder / "model", num_labels=2)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, target_modules=["query", "value"])
    model = peft.get_peft_model(base, config)
    names = sorted({label for _, label in rows})
    batch = tokenizer([text.strip('"') for text, _ in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([names.index(label) for _, label in rows])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(60):
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "adapter")
    return folder


def test_with_data_what_a_cut_costs_is_measured_on_every_example(home):
    words = ["model=local", "model.path=model", "task=csv", "task.path=texts.csv", "device=cpu"]
    done = rankexp(home, "analyze", "adapter", "--out", "page", *words)
    assert done.returncode == 0, done.stderr
    doc = json.loads((home / "page/adapter.json").read_text())
    rows = len((home / "texts.csv").read_text().splitlines()) - 1
    assert doc["data"] == f"{rows} of csv"
    measured = {rank: {one["metric"]: one for one in of} for rank, of in doc["measured"].items()}
    assert set(measured) == {"-1", "1", "2"}
    assert measured["-1"]["loss"]["lost"] == 0
    for rank in ("1", "2"):
        loss = measured[rank]["loss"]
        assert loss["lost"] == pytest.approx(loss["mean"] - measured["-1"]["loss"]["mean"], abs=1e-6)
        assert loss["lower"] <= loss["lost"] <= loss["upper"]
    assert "What a cut costs" in (home / "page/adapter.html").read_text()


def test_a_task_whose_head_the_adapter_does_not_bring_is_refused(home, tmp_path):
    adapter = home / "headless"
    adapter.mkdir()
    config = json.loads((home / "adapter/adapter_config.json").read_text())
    tensors = load_file(home / "adapter/adapter_model.safetensors")
    save_file(
        {key: value for key, value in tensors.items() if "classifier" not in key}, adapter / "adapter_model.safetensors"
    )
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": None, "task_type": None}))
    words = ["model=local", "model.path=model", "task=csv", "task.path=texts.csv", "device=cpu"]
    done = rankexp(home, "analyze", "headless", "--out", str(tmp_path / "page"), *words)
    assert done.returncode == 2
    assert "the adapter brings no classifier, which task csv needs" in done.stderr


def test_what_hydra_shows_instead_is_shown_and_many_runs_are_refused(home, tmp_path):
    words = ["model=local", "model.path=model", "task=csv", "task.path=texts.csv"]
    done = rankexp(home, "analyze", "adapter", "--out", str(tmp_path / "page"), *words, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "task:" in done.stdout
    assert not (tmp_path / "page").exists()
    done = rankexp(home, "analyze", "adapter", "--out", str(tmp_path / "page"), *words, "--multirun")
    assert done.returncode == 2
    assert "no --multirun" in done.stderr


def test_a_model_that_the_adapter_does_not_go_with_is_told(home, tmp_path):
    save(CASES["roberta"], home / "other")
    words = ["model=local", "model.path=other", "task=csv", "task.path=texts.csv", "device=cpu"]
    done = rankexp(home, "analyze", "adapter", "--out", str(tmp_path / "page"), *words)
    assert done.returncode == 2
    assert "does not go with this model and task" in done.stderr
    assert not (tmp_path / "page").exists()
