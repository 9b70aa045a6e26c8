"""Modules that are trained whole and rows of the token embedding beside LoRA, under the laws of every adapter."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from adapter_laws import check_packed, check_resumed
from safetensors.torch import load_file
from test_language import make_spec
from thorough import later, later_but
from tiny_language import MODELS, make_base, make_bench, placed, write_rows

from rankexp.lora.inject import eject
from rankexp.lora.peft_reading import load_adapter
from rankexp.lora.tokens import TrainedLogits, TrainedRows
from rankexp.models.base import find_model
from rankexp.models.beside import also_training, trained_whole
from rankexp.models.files import ModelError
from rankexp.models.kinds import classifier
from rankexp.models.loading import brought_names, loading_of
from rankexp.record.trials import TrialStore
from rankexp.tasks.sft.task import SftTask
from rankexp.training.anatomy import anatomy_of
from rankexp.training.bench import Bench
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Pruning, Scoring

pytestmark = pytest.mark.slow

TOKENS = [82, 68, 198]
KINDS = {
    "table": ("llama", ["embed_tokens"], []),
    "tied table": ("gpt2", ["wte"], []),
    "output": ("llama", ["lm_head"], []),
    "both": ("llama", ["embed_tokens", "lm_head"], []),
    "norms": ("qwen2", ["input_layernorm"], []),
    "rows": ("llama", [], TOKENS),
    "tied rows": ("gpt2", [], TOKENS),
    "scaled rows": ("gemma3", [], TOKENS),
    "rows and norms": ("qwen2", ["model.norm"], TOKENS),
}
SOME = later_but({"both", "tied rows"}, KINDS)


def base_of(kind):
    name, modules, tokens = KINDS[kind]
    return also_training(make_base(name), modules, tokens)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda kind: make_bench(tmp_path_factory.mktemp("bench"), kind, base_of(kind)))


@pytest.mark.parametrize("kind", SOME)
def test_it_is_trained_beside_lora_and_leaves_the_base_as_it_was(benches, tmp_path, kind):
    bench = benches(kind)
    before = {name: p.detach().clone() for name, p in bench.model.named_parameters()}
    spec = make_spec(bench, steps=20)
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    held = load_file(trial.adapter / "adapter_model.safetensors")
    beside = {k.removeprefix("base_model.model."): v for k, v in held.items() if "lora_" not in k}
    assert beside
    for name, value in beside.items():
        table = name.removesuffix(".token_adapter.trainable_tokens_delta")
        start = before[name] if table == name else before[f"{table}.weight"][sorted(TOKENS)]
        assert value.shape == start.shape
        assert not torch.equal(value, start), f"{name} has not moved"
    for name, value in bench.model.named_parameters():
        assert torch.equal(value, before[name])
    again = bench.score_trial(trial, Scoring("decide"))
    np.testing.assert_array_equal(again.values["loss"], trial.scores("decide").values["loss"])
    for name, value in bench.model.named_parameters():
        assert torch.equal(value, before[name])
        assert not value.requires_grad


@pytest.mark.filterwarnings("ignore")  # of transformers and PEFT, about tied weights
@pytest.mark.parametrize("kind", later_but({"both", "tied rows", "norms", "scaled rows"}, KINDS))
def test_the_adapter_in_peft_and_read_back_gives_the_recorded_losses(benches, tmp_path, kind):
    from peft import PeftModel

    bench = benches(kind)
    trial = train_trial(bench, make_spec(bench, alpha=32.0, steps=20), TrialStore(tmp_path))
    recorded = trial.scores("decide").values["loss"]
    model = PeftModel.from_pretrained(placed(make_base(KINDS[kind][0])), trial.adapter).eval()
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32").values["loss"]
    np.testing.assert_allclose(again, recorded, rtol=1e-4, atol=1e-4)
    assert read_back(bench.base, bench.data, trial, bench.device).passed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SOME)
def test_what_peft_has_written_is_read(tmp_path, kind):
    from peft import LoraConfig, get_peft_model

    name, modules, tokens = KINDS[kind]
    config = LoraConfig(
        r=2, target_modules=["c_attn"] if name == "gpt2" else ["q_proj"], task_type="CAUSAL_LM",
        modules_to_save=modules or None, trainable_token_indices=tokens or None, fan_in_fan_out=name == "gpt2",
    )  # fmt: skip
    theirs = get_peft_model(placed(make_base(name)), config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs.save_pretrained(tmp_path)
    ids = torch.tensor([[82, 3, 68, 198, 12]])
    ours = placed(make_base(name))
    load_adapter(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SOME)
def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path, kind):
    bench = benches(kind)
    spec = make_spec(bench, steps=6)
    check_resumed(bench, tmp_path, spec)


@pytest.mark.parametrize("kind", SOME)
def test_a_pack_is_each_of_it_alone_where_it_packs(benches, tmp_path, kind):
    bench = benches(kind)
    assert bench.packs == (kind not in {"output", "both", "tied rows", "scaled rows"})
    if not bench.packs:
        return
    specs = [make_spec(bench, rank, seed=seed, steps=6) for rank, seed in ((1, 0), (4, 1), (8, 2))]
    check_packed(bench, tmp_path, *specs, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dora"},
        {"initialisation": "pissa"},
        {"method": "nested", "nested_ranks": (1, 2)},
        {"method": "adalora", "rank": 4, "pruning": Pruning(budget=16, first=2, last=8)},
    ],
    ids=["dora", "pissa", "nested", "adalora"],
)
@pytest.mark.parametrize("kind", [later("table"), "tied rows"])
def test_it_goes_with_every_method(benches, tmp_path, kind, changes):
    bench = benches(kind)
    spec = make_spec(bench, **{"steps": 10, **changes})
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    assert trial.result.status == "completed"
    again, recorded = bench.score_trial(trial, Scoring("decide")), trial.scores("decide")
    np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=1e-6)


@pytest.mark.parametrize("kind", [later("table"), later("rows"), "tied rows"])
def test_around_a_base_in_bfloat16_it_is_trained_in_float32(tmp_path, kind):
    base = replace(base_of(kind), dtype="bfloat16")
    bench = make_bench(tmp_path, kind, replace(base, fingerprint=f"{base.fingerprint}b"))
    spec = make_spec(bench, steps=10, precision="bfloat16")
    assert {p.dtype for p in bench.adapter(spec).parameters()} == {torch.float32}
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert read_back(bench.base, bench.data, trial, bench.device).passed


@pytest.mark.parametrize("modules", [later(["embed_tokens"]), ["lm_head"], later(["input_layernorm", "model.norm"])])
def test_around_a_base_in_bfloat16_what_is_trained_writes_too(tmp_path, modules):
    base = replace(also_training(make_base(), modules, []), dtype="bfloat16")
    task = SftTask(path=str(write_rows(tmp_path / "rows.jsonl")), generate=["exact_match"], max_new_tokens=6)
    bench = Bench.load(base, task.load(base.processor, lambda _: None), torch.device("cpu"))
    trial = train_trial(bench, make_spec(bench, steps=4, precision="bfloat16"), TrialStore(tmp_path / "runs"))
    assert trial.result.status == "completed", trial.result.reason
    assert len(trial.generations("decide")) == len(trial.scores("decide"))


def test_a_classifier_trains_rows_too(bench, tmp_path):
    base = also_training(bench.base, [], [3, 5])
    assert base.fingerprint != bench.base.fingerprint
    model = base.build(classifier(2))
    assert brought_names(model) == ("classifier",)
    made = trained_whole(model, 0)
    assert set(made) == {"classifier", "bert.embeddings.word_embeddings"}


def test_what_a_trial_starts_from_is_the_base(benches):
    bench = benches("tied rows")
    made = trained_whole(bench.model, 0)
    rows, logits = made["transformer.wte"], made["lm_head"]
    assert isinstance(rows, TrainedRows)
    assert isinstance(logits, TrainedLogits)
    assert logits.rows is rows.rows
    ids, hidden = torch.arange(288)[None], torch.randn(3, 32)
    assert torch.equal(rows(ids), rows.base(ids))
    torch.testing.assert_close(logits(hidden), logits.base(hidden), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "modules", "tokens", "said"),
    [
        ("llama", ["embed_tokns"], [], "did you mean 'embed_tokens'"),
        ("llama", ["rotary_emb"], [], "has nothing to train"),
        ("llama", ["model"], [], "holds every block"),
        ("llama", ["layers"], [], "holds every block"),
        ("llama", ["mlp", "up_proj"], [], "a part of model.layers.0.mlp, which is saved whole already"),
        ("llama", [], [288], "there is no token 288: the model has embeddings of 288 tokens"),
        ("llama", [], [5, 5], "token 5 is named twice"),
        ("llama", ["embed_tokens"], [5], "names rows that model.embed_tokens has, which is trained whole"),
        ("gpt2", ["lm_head"], [5], "names rows that lm_head has, which is trained whole"),
        ("opt", ["decoder"], [], "holds every block"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(one_sentence, name, modules, tokens, said):
    with pytest.raises(ModelError) as refused:
        placed(also_training(make_base(name), modules, tokens))
    assert said in one_sentence(refused.value)


def test_nothing_more_is_the_same_base():
    base = make_base()
    assert also_training(base, [], []) is base


def test_an_adapter_of_other_rows_is_refused(benches, tmp_path):
    bench = benches("rows")
    trial = train_trial(bench, make_spec(bench, steps=2), TrialStore(tmp_path))
    config = trial.adapter / "adapter_config.json"
    for tokens in (
        "[68, 82]",
        "null",
        '{"embed_tokens": [68, 82, 198]}',
        "[68, 82, 999]",
        '[68, "x", 198]',
        "[68, 82.5, 198]",
        "[true, 82, 198]",
    ):
        lines = config.read_text()
        broken = tmp_path / "broken"
        broken.mkdir(exist_ok=True)
        start = lines.index('"trainable_token_indices": ') + len('"trainable_token_indices": ')
        end = lines.index("]", start) + 1
        (broken / config.name).write_text(lines[:start] + tokens + lines[end:])
        (broken / "adapter_model.safetensors").write_bytes((trial.adapter / "adapter_model.safetensors").read_bytes())
        model = placed(make_base())
        with pytest.raises(ValueError, match=r"trainable_token_indices|trained rows|no token 999|shape"):
            load_adapter(model, broken)
        assert eject(model) == []
        assert isinstance(model.get_input_embeddings(), torch.nn.Embedding)


def test_inspect_counts_it(benches):
    plain, rows, table = (
        anatomy_of(placed(base), "all-linear", [2], 16).head
        for base in (make_base(), base_of("rows"), base_of("table"))
    )
    assert (plain, rows, table) == (0, 3 * 32, 288 * 32)
    left = [one.why for one in anatomy_of(placed(base_of("rows")), "all-linear", [2], 16).left]
    assert any("of which 3 rows are trained" in why for why in left)
    left = [one.why for one in anatomy_of(placed(make_base()), "all-linear", [2], 16).left]
    assert not any("are trained" in why for why in left)


def test_a_model_that_is_found_again_is_the_same():
    def found(modules, tokens):
        base = find_model(name="llama", source="config", path=None, architecture=MODELS["llama"])
        return also_training(base, modules, tokens).fingerprint

    assert found(["a", "b"], [1, 2]) == found(["b", "a"], [2, 1])
    assert len({found([], []), found(["a"], []), found([], [1]), found(["a"], [1])}) == 4
    assert loading_of(base_of("rows").build(classifier(2))).rows == (68, 82, 198)
