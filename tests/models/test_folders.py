"""Model folders of strangers, and broken ones: only what is hashed is loaded, and what is refused is said in a sentence."""

import json
import os
import shutil

import pytest
import torch
from architectures import CASES, DECODER, ENCODER, Case, save, write_texts
from safetensors.torch import load_file, save_file

from rankexp.canonical_json import content_key
from rankexp.models.base import ModelError, find_model
from rankexp.models.kinds import classifier
from rankexp.option_errors import ConfigError
from rankexp.tasks.tabular import CsvTask
from rankexp.training.bench import Bench
from rankexp.training.padding import positions

CPU = torch.device("cpu")


def find(folder):
    return find_model(name="m", source="path", path=str(folder))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return {name: save(CASES[name], tmp_path_factory.mktemp(name)) for name in ("bert", "sharded", "gpt2")}


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved["bert"], tmp_path / "model")


@pytest.fixture
def shards(saved, tmp_path):
    return shutil.copytree(saved["sharded"], tmp_path / "shards")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(folder, one_sentence, build=False):
    with pytest.raises(ModelError) as error:
        find(folder).build(classifier(2)) if build else find(folder)
    print(error.value)
    return one_sentence(error.value)


def test_the_fingerprint_is_that_of_the_config_and_of_each_file_of_weights_by_its_hash(folder, shards):
    """As it has been since the first version: recomputed here from the files alone."""
    import hashlib

    for place in (folder, shards):
        config = json.loads((place / "config.json").read_bytes())
        known = {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")}
        files = sorted(place.glob("*.safetensors"))
        digest = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
        assert find(place).fingerprint == content_key([known, digest])
    assert len(list(shards.glob("*.safetensors"))) > 1


@pytest.mark.parametrize("name", ["consolidated.safetensors", "model-00001-of-00002.safetensors", "a.safetensors"])
def test_weights_beside_the_models_own_change_nothing(folder, name):
    before, weights = find(folder), find(folder).build(classifier(2)).state_dict()
    save_file({"classifier.weight": torch.ones(2, 16)}, folder / name, metadata={"format": "pt"})
    assert find(folder).fingerprint == before.fingerprint
    assert all(
        torch.equal(value, weights[key]) for key, value in find(folder).build(classifier(2)).state_dict().items()
    )


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/passwd",
        "pytorch_model.bin",
        "sub/x.safetensors",
        "",
        "..",
        "\0",
        "gone.safetensors",
    ],
)
def test_an_index_names_files_of_its_folder_alone(shards, name, one_sentence):
    save_file({"x": torch.ones(1)}, shards.parent / "other.safetensors")
    (shards / "pytorch_model.bin").write_bytes(b"")
    path = shards / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    path.write_text(json.dumps(index))
    assert "names the file" in refused(shards, one_sentence)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{", "[" * 100000])
def test_an_index_that_is_none_is_refused(shards, content, one_sentence):
    (shards / "model.safetensors.index.json").write_text(content)
    refused(shards, one_sentence)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("how", ["link", "pipe", "broken link"])
def test_a_file_that_leads_elsewhere_is_refused(folder, name, how, one_sentence):
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    if how == "pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to(outside if how == "link" else folder.parent / "nowhere")
    message = refused(folder, one_sentence)
    assert name in message


def test_a_link_inside_the_folder_and_to_the_folder_are_followed(folder):
    (folder / "model.safetensors").rename(folder / "weights.bin")
    (folder / "model.safetensors").symlink_to("weights.bin")
    (folder.parent / "elsewhere").symlink_to(folder)
    assert find(folder.parent / "elsewhere").fingerprint == find(folder).fingerprint


def test_a_snapshot_of_the_hub_links_into_its_own_cache_and_no_further(folder, tmp_path, monkeypatch, one_sentence):
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(i))
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    assert find("org/name").fingerprint == find(folder).fingerprint
    assert "leads out" in refused(snapshot, one_sentence)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(folder / "config.json")
    with pytest.raises(ModelError, match="leads out"):
        find("org/name")


CONFIGS = {
    "auto_map": ({"auto_map": {}}, "code of its own"),
    "nested auto_map": ({"text_config": {"sub": [{"auto_map": {"AutoConfig": "evil.C"}}]}}, "code of its own"),
    "a kernel of the hub": ({"attn_implementation": "org/kernel"}, "kernel from elsewhere"),
    "a nested kernel": ({"text_config": {"_attn_implementation": {"": "org/kernel@v1:f"}}}, "kernel from elsewhere"),
    "quantised": ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "is quantised"),
    "quantised by gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "is quantised"),
    "other weights": ({"transformers_weights": "../other.safetensors"}, "names other weights"),
    "a type that is no name": ({"model_type": ["bert"]}, "no name"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_asks_for_more_than_its_folder_is_refused(folder, name, one_sentence):
    changes, message = CONFIGS[name]
    edit(folder / "config.json", **changes)
    assert message in refused(folder, one_sentence)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "processor_config.json", "preprocessor_config.json"])
def test_code_named_by_another_config_is_refused(folder, file, one_sentence):
    path = folder / file
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), "auto_map": {"A": "e.B"}}))
    assert "code of its own" in refused(folder, one_sentence)


BROKEN = {
    "deep": b"[" * 100000,
    "deep object": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "not UTF-8": b'{"model_type": "b\xffrt"}',
    "a null": b"null",
    "empty": b"",
    "a number of thousands of digits": b'{"model_type": "bert", "hidden_size": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_json_that_is_none_is_refused(folder, file, name, one_sentence):
    (folder / file).write_bytes(BROKEN[name])
    refused(folder, one_sentence, build=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "x"}, {"hidden_size": -1}, {"hidden_size": 10**12}, {"hidden_size": None}, {"vocab_size": 10**15},
        {"num_hidden_layers": 10**9}, {"num_attention_heads": 0}, {"num_attention_heads": 3}, {"hidden_act": "evil"},
        {"model_type": "unknown"}, {"hidden_size": [1]}, {"id2label": 3}, {"pad_token_id": "x"}, {"model_type": "gpt2"},
    ],
    ids=str,
)  # fmt: skip
def test_numbers_and_types_that_are_none_are_refused_before_memory_is_asked_for(folder, changes, one_sentence):
    edit(folder / "config.json", **changes)
    refused(folder, one_sentence, build=True)


@pytest.mark.parametrize("alone", [True, False])
def test_an_adapter_beside_the_weights_or_instead_of_them_is_refused(folder, alone, one_sentence):
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "/etc"}))
    save_file({"x": torch.ones(1)}, folder / "adapter_model.safetensors")
    if alone:
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    assert "holds an adapter" in refused(folder, one_sentence)


def drop(folder, prefix):
    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if not name.startswith(prefix)}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("prefix", ["bert.encoder.layer.1.", "bert.embeddings.word", "bert.encoder", "bert."])
def test_a_base_of_which_a_part_is_missing_is_refused(folder, prefix, one_sentence):
    drop(folder, prefix)
    assert "lacks" in refused(folder, one_sentence, build=True)


def test_blocks_that_the_config_does_not_have_are_refused(folder, one_sentence):
    edit(folder / "config.json", num_hidden_layers=1)
    assert "bert.encoder.layer.1" in refused(folder, one_sentence, build=True)


def bench_of(case, tmp_path, **task):
    folder = save(case, tmp_path / "model")
    base = find(folder)
    data = CsvTask(path=write_texts(tmp_path / "texts.csv", 2), **task).load(base.processor, lambda _: None)
    return Bench.load(base, data, CPU)


def test_tokens_beyond_the_table_are_refused(tmp_path, one_sentence):
    with pytest.raises(ConfigError, match="has embeddings for 0 to 24") as error:
        bench_of(Case("bert", {**ENCODER, "vocab_size": 25, "pad_token_id": 0}), tmp_path)
    one_sentence(error.value)


def test_places_beyond_the_table_are_refused_with_the_number_that_there_are(tmp_path, one_sentence):
    values = {**ENCODER, "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "max_position_embeddings": 18}
    with pytest.raises(ConfigError, match="the model takes 16; lower task.max_length to 16") as error:
        bench_of(Case("roberta", values), tmp_path)
    one_sentence(error.value)
    assert bench_of(Case("roberta", values), tmp_path / "again", max_length=16).data.splits["train"].sizes.max() == 16


@pytest.mark.parametrize(("name", "known"), [("gpt2", 40), ("bert", 40), ("xlnet", None), ("deberta-v2", None)])
def test_a_model_has_the_places_that_it_has(name, known, tmp_path):
    assert positions(find(save(CASES[name], tmp_path / "model")).build(classifier(2))) == known


def test_a_model_without_an_attention_mask_is_refused(tmp_path, one_sentence):
    values = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 80, "pad_token_id": 0}
    with pytest.raises(ConfigError, match="beside a longer one") as error:
        bench_of(Case("fnet", values), tmp_path)
    one_sentence(error.value)


def test_layers_of_one_output_are_left_alone(tmp_path):
    """The gate of shared experts has one output, which no rank above 1 fits."""
    values = {**DECODER, "pad_token_id": 0, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
              "shared_expert_intermediate_size": 16, "decoder_sparse_step": 1}  # fmt: skip
    bench = bench_of(Case("qwen2_moe", values), tmp_path)
    shapes = bench.shapes("all-linear")
    assert not any("shared_expert_gate" in name for name in shapes)
    assert min(min(shape) for shape in shapes.values()) > 1
    gate = "model.layers.0.mlp.shared_expert_gate"
    assert bench.shapes([gate]) == {gate: (16, 1)}
