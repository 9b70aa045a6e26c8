"""Every architecture: a text scores in a batch as it scores alone, and the adapter gives its scores in PEFT."""

import csv
from dataclasses import asdict

import numpy as np
import pytest
import torch
from architectures import CASES, save, write_texts
from peft import PeftModel
from safetensors.torch import load_file, save_file
from thorough import later_but
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rankexp.models.base import Padding, find_model
from rankexp.ranks import RankMap
from rankexp.tasks.tabular import CsvTask
from rankexp.training.bench import Bench
from rankexp.training.reach import reach_of
from rankexp.training.readback import read_back
from rankexp.training.trial import train_trial
from rankexp.trial_spec import TrialSpec

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
FAST = ("gpt2 that ends its texts", "llama padded otherwise", "roberta", "qwen3_moe", "bert without pooler",
        "half precision and five labels", "bart without a pad in the tokenizer")  # fmt: skip
EACH = pytest.mark.parametrize("name", later_but(FAST, CASES))


@pytest.fixture
def made(name, tmp_path):
    """A bench of the model on texts, and the folder and file that they came from."""
    folder = save(CASES[name], tmp_path / "model")
    texts = write_texts(tmp_path / "texts.csv", CASES[name].labels)
    base = find_model(name="m", source="path", path=str(folder))
    data = CsvTask(path=texts).load(base.processor, lambda _: None)
    return Bench.load(base, data, CPU), folder, texts


def spec_of(bench):
    return TrialSpec(
        model=bench.base.fingerprint,
        data=bench.data.fingerprint,
        task="csv",
        method="lora",
        rank_map=RankMap.uniform(bench.shapes("all-linear"), 2),
        learning_rate=1e-2,
        steps=4,
        batch_size=8,
        evaluate=("tune", "decide"),
    )


def as_the_readme_says(folder, labels, adapter):
    base = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=labels, dtype=torch.float32, ignore_mismatched_sizes=True
    )
    return PeftModel.from_pretrained(base, adapter).eval()


@torch.no_grad()
def losses_one_at_a_time(model, folder, texts, recorded, data):
    rows = {f"row-{i}": row for i, row in enumerate(csv.DictReader(texts.open(encoding="utf-8")), 2)}
    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for example in recorded.example_ids.tolist():
        text = tokenizer([rows[example]["text"]], truncation=True, max_length=128, return_tensors="pt")
        logits = model(input_ids=text["input_ids"], attention_mask=text["attention_mask"]).logits
        label = torch.tensor([data.objective.labels.index(rows[example]["label"])])
        found.append(cross_entropy(logits.float(), label).item())
    return np.array(found)


@EACH
@pytest.mark.filterwarnings("ignore")  # of transformers and PEFT, about what they are given
def test_the_adapter_gives_its_recorded_scores_in_peft_with_one_text_at_a_time(made, store, name):
    bench, folder, texts = made
    trial = train_trial(bench, spec_of(bench), store)
    assert trial.result.status == "completed", trial.result.reason
    recorded = trial.scores("decide")
    model = as_the_readme_says(folder, len(bench.data.objective.labels), trial.adapter)
    found = losses_one_at_a_time(model, folder, texts, recorded, bench.data)
    np.testing.assert_allclose(found, recorded.values["loss"], rtol=1e-5, atol=1e-5)
    ours = read_back(bench.base, bench.data, trial, CPU)
    assert ours.passed, asdict(ours)
    assert ours.loss_difference < 1e-5 * max(1, recorded.values["loss"].max())


@EACH
@pytest.mark.filterwarnings("ignore")
def test_a_text_alone_and_beside_a_longer_one_give_the_same_logits(made, name):
    bench, *_ = made
    split = bench.data.splits["train"]
    order = np.argsort(split.sizes, kind="stable")
    index = np.array([order[0], order[1], order[len(order) // 2], order[-1]])
    assert split.sizes[index[0]] < split.sizes[index[-1]]
    together = bench.model(**bench.collator(split)(index).inputs).logits
    alone = [bench.model(input_ids=torch.from_numpy(split.tokens[i].astype(np.int64))[None]).logits for i in index]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=2e-5 * float(together.abs().max()))


@pytest.mark.parametrize("name", ["bert"])
@pytest.mark.parametrize("lost", ["lora_A", "classifier", "all"])
def test_an_adapter_that_does_not_give_its_scores_is_found(made, store, name, lost):
    bench, *_ = made
    trial = train_trial(bench, spec_of(bench), store)
    assert read_back(bench.base, bench.data, trial, CPU).passed
    path = trial.adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    if lost == "all":
        tensors = {key: value for key, value in tensors.items() if "classifier" not in key}
    else:
        tensors = {key: value * (2 if lost in key else 1) for key, value in tensors.items()}
    save_file(tensors, path)
    found = read_back(bench.base, bench.data, trial, CPU)
    assert not found.passed
    assert found.loss_difference > found.tolerance


@pytest.mark.parametrize("name", ["bert"])
def test_weights_that_another_base_has_are_found(made, store, name, tmp_path):
    """What a trial left in the frozen model of its bench would be, too."""
    bench, *_ = made
    with torch.no_grad():
        bench.model.get_submodule("bert.encoder.layer.0.output.dense").weight.mul_(1.2)
    trial = train_trial(bench, spec_of(bench), store)
    assert not read_back(bench.base, bench.data, trial, CPU).passed


PADDINGS = {
    "bert": Padding(0),
    "roberta": Padding(0),
    "gpt2": Padding(3),
    "llama": Padding(0),
    "llama padded otherwise": Padding(0),
    "bart without a pad in the tokenizer": Padding(0),
}


@pytest.mark.parametrize("name", PADDINGS)
def test_the_usual_padding_stays_where_it_is_right(made, name):
    bench, folder, _ = made
    assert bench.padding == PADDINGS[name]
    found = find_model(name="m", source="path", path=str(folder))
    usual = found.pad_token_id == bench.padding.token
    assert (bench.base.fingerprint == found.fingerprint) is usual


@pytest.mark.parametrize("name", ["qwen3_moe"])
def test_experts_that_are_no_layers_are_named(made, name):
    bench, *_ = made
    reach = reach_of(bench.model, bench.shapes("all-linear"), bench.saved)
    assert {kind.name for kind in reach.bare} >= {"model.layers.mlp.experts.gate_up_proj"}
    assert sum(kind.share for kind in reach.bare) > 0.3
    (sentence,) = reach.sentences
    assert "left as they are" in sentence
    assert "experts" in sentence


@pytest.mark.parametrize("name", ["bert without pooler"])
def test_what_is_drawn_is_saved_and_another_model(made, store, name):
    bench, folder, _ = made
    assert bench.saved == ("classifier", "bert.pooler.dense")
    assert "bert.pooler.dense" not in bench.shapes("all-linear")
    assert bench.base.fingerprint != find_model(name="m", source="path", path=str(folder)).fingerprint
