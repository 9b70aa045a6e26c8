"""Modules and rows of the token embedding that are trained beside LoRA, in classifiers of many architectures."""

import numpy as np
import pytest
import torch
from architectures import CASES, SIZE, save, write_texts
from safetensors.torch import load_file
from test_architectures import CPU, as_the_readme_says, losses_one_at_a_time, spec_of
from thorough import later_but

from rankexp.models.base import find_model
from rankexp.models.beside import also_training
from rankexp.models.files import ModelError
from rankexp.tasks.tabular import CsvTask
from rankexp.training.bench import Bench
from rankexp.training.readback import read_back
from rankexp.training.trial import train_trial

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of transformers and PEFT, about tied weights

TOKENS = [4, 5, 20]
QUICK = ("bert", "llama", "half precision and five labels")
SHARED = tuple(name for name, case in CASES.items() if case.kind in {"bart", "t5"})
"""Whose encoder and decoder have tables of their own with the weight of a third, which PEFT does not train."""


def bench_of(name, folder, modules, tokens):
    save(CASES[name], folder / "model")
    texts = write_texts(folder / "texts.csv", CASES[name].labels)
    base = also_training(find_model(name="m", source="path", path=str(folder / "model")), modules, tokens)
    return Bench.load(base, CsvTask(path=texts).load(base.processor, lambda _: None), CPU)


def check_in_peft(bench, folder, trial):
    """Score the adapter with PEFT, one text at a time, and as rankexp reads it back."""
    recorded = trial.scores("decide")
    model = as_the_readme_says(folder / "model", len(bench.data.objective.labels), trial.adapter)
    found = losses_one_at_a_time(model, folder / "model", folder / "texts.csv", recorded, bench.data)
    np.testing.assert_allclose(found, recorded.values["loss"], rtol=1e-5, atol=1e-5)
    assert read_back(bench.base, bench.data, trial, CPU).passed


@pytest.mark.parametrize("name", later_but(QUICK, (name for name in CASES if name not in SHARED)))
def test_rows_are_trained_and_brought_along(tmp_path, store, name):
    bench = bench_of(name, tmp_path, [], TOKENS)
    before = [p.detach().clone() for p in bench.model.parameters()]
    trial = train_trial(bench, spec_of(bench), store)
    assert trial.result.status == "completed", trial.result.reason
    held = load_file(trial.adapter / "adapter_model.safetensors")
    (rows,) = (value for key, value in held.items() if key.endswith("trainable_tokens_delta"))
    start = bench.model.get_input_embeddings().weight[TOKENS]
    assert (rows != start).any()
    assert all(map(torch.equal, bench.model.parameters(), before))
    check_in_peft(bench, tmp_path, trial)


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("bert", ["word_embeddings", "LayerNorm"]),
        ("bart", ["encoder.embed_tokens"]),
        ("bert without pooler", ["pooler"]),
    ],
)
def test_modules_are_trained_and_brought_along(tmp_path, store, name, modules):
    bench = bench_of(name, tmp_path, modules, [])
    trial = train_trial(bench, spec_of(bench), store)
    check_in_peft(bench, tmp_path, trial)


@pytest.mark.parametrize(
    ("name", "modules", "tokens", "said"),
    [
        ("bart", ["shared"], [], "on which no loss of the model hangs"),
        ("bart", ["encoder.layers"], [], "which is a list of modules, and PEFT saves none of those"),
        ("roberta", ["dense"], [], "a part of classifier, which is saved whole already"),
        ("bert", [], [SIZE], f"there is no token {SIZE}"),
        *((name, [], TOKENS, "shares its weight with the table, and PEFT cannot hold that") for name in SHARED),
    ],
)
def test_what_peft_could_not_hold_is_refused(tmp_path, one_sentence, name, modules, tokens, said):
    with pytest.raises(ModelError) as refused:
        bench_of(name, tmp_path, modules, tokens)
    assert said in one_sentence(refused.value)


def test_a_model_that_reads_characters_has_no_table(one_sentence):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    canine = {"model_type": "canine", **small, "num_hash_functions": 2, "num_hash_buckets": 16}
    base = find_model(name="m", source="config", path=None, architecture=canine)
    from rankexp.models.kinds import classifier

    with pytest.raises(ModelError, match="has no table of token embeddings") as refused:
        also_training(base, [], [3]).build(classifier(2))
    one_sentence(refused.value)


@pytest.mark.parametrize(
    ("modules", "packs"), [([], True), (["LayerNorm"], True), (["relative_attention_bias"], False)]
)
def test_a_module_that_is_not_called_with_rows_of_the_batch_keeps_a_model_out_of_packs(tmp_path, modules, packs):
    assert bench_of("mpnet", tmp_path, modules, []).packs is packs
