"""Base models: what is refused, what a fingerprint covers, and the head."""

import dataclasses
import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModelForSequenceClassification, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from rankexp.models.base import ModelError, find_model, head_names, reset_head
from rankexp.models.kinds import classifier

TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 12}
ARCHITECTURES = {
    "bert": {"model_type": "bert", **TINY},
    "roberta": {"model_type": "roberta", **TINY},
    "distilbert": {"model_type": "distilbert", "dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 2,
                   "vocab_size": 12},
    "gpt2": {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 12,
             "bos_token_id": 1, "eos_token_id": 1},
}  # fmt: skip
INPUTS = {
    "input_ids": torch.tensor([[2, 3, 4, 0], [5, 6, 7, 8]]),
    "attention_mask": torch.tensor([[1, 1, 1, 0], [1] * 4]),
}


def find(path, **options):
    return find_model(name="m", source="path", path=str(path), **options)


def from_config(name, **options):
    return find_model(name="m", source="config", path=None, architecture=ARCHITECTURES[name], **options)


def logits(model):
    with torch.no_grad():
        return model(**INPUTS).logits


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A classifier of two labels with its tokenizer, as somebody might have saved it."""
    folder = tmp_path_factory.mktemp("model")
    words = Tokenizer(WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    from_config("bert").build(classifier(2)).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy to break."""
    return shutil.copytree(saved, tmp_path / "copy")


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Evil:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_folder_gives_the_saved_weights_and_its_own_tokenizer(saved):
    base = find(saved)
    model = base.build(classifier(2))
    assert same(model.state_dict(), load_file(saved / "model.safetensors"))
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert base.processor(["good bad zzz", "bad"], 2, ["zzz"]) == [[2, 3], [3]]
    assert (base.pad_token_id, base.reference) == (0, str(saved))


def test_a_classifier_of_other_labels_gives_its_body(saved):
    model, body = find(saved).build(classifier(5)), load_file(saved / "model.safetensors")
    assert logits(model).shape == (2, 5)
    for name, weight in model.state_dict().items():
        assert name.startswith("classifier.") or torch.equal(weight, body[name])


def test_weights_of_another_shape_in_the_body_are_refused(folder, one_sentence):
    edit(folder / "config.json", intermediate_size=16)
    with pytest.raises(ModelError, match="intermediate") as refused:
        find(folder).build(classifier(2))
    one_sentence(refused.value)


def test_weights_that_the_files_lack_are_the_same_every_time(folder):
    BertForMaskedLM(BertConfig(**TINY)).save_pretrained(folder)
    first, torch_state = find(folder).build(classifier(2)), torch.get_rng_state()
    torch.manual_seed(123)
    assert same(first.state_dict(), find(folder).build(classifier(2)).state_dict())
    assert "bert.pooler.dense.weight" in first.state_dict()
    torch.set_rng_state(torch_state)


def test_a_fingerprint_covers_weights_and_config_and_no_path(saved, folder):
    original = find(saved).fingerprint
    assert find(folder).fingerprint == original
    edit(folder / "config.json", _name_or_path="elsewhere", transformers_version="9")
    assert find(folder).fingerprint == original
    edit(folder / "config.json", layer_norm_eps=1e-6)
    other_config = find(folder).fingerprint
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.bias"][0] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert len({original, other_config, find(folder).fingerprint}) == 3


def test_code_that_comes_with_a_model_is_refused_and_not_run(folder, tmp_path, one_sentence):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    edit(folder / "config.json", auto_map={"AutoConfig": "evil.Config"})
    with pytest.raises(ModelError, match="brings code of its own") as refused:
        find(folder)
    assert str(folder) in one_sentence(refused.value)
    assert not (tmp_path / "executed").exists()


def test_code_that_comes_with_a_tokenizer_is_not_run_and_nobody_is_asked(folder, tmp_path, capsys):
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    edit(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, tokenizer_class="T")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer that can be loaded"):
        find(folder)
    assert not (tmp_path / "executed").exists()
    assert "y/N" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt"])
def test_a_model_of_pickles_is_refused_and_not_executed(folder, name, tmp_path, one_sentence):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "executed")))
    with pytest.raises(ModelError, match=r"has no \.safetensors file; other formats are not loaded") as refused:
        find(folder)
    assert str(folder) in one_sentence(refused.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", ["another file's", "a pickle"])
def test_a_pickle_beside_or_in_a_safetensors_file_is_not_executed(folder, content, tmp_path, one_sentence):
    evil = pickle.dumps(Evil(tmp_path / "executed"))
    (folder / "pytorch_model.bin").write_bytes(evil)
    if content == "a pickle":
        (folder / "model.safetensors").write_bytes(evil)
    else:
        (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded") as refused:
        find(folder).build(classifier(2))
    assert str(folder) in one_sentence(refused.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "has no readable config.json"),
        (lambda f: (f / "config.json").write_text("{"), "has no readable config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "has no readable config.json"),
        (lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")], "has no tokenizer"),
    ],
    ids=["no config", "broken config", "a list", "no tokenizer"],
)
def test_an_incomplete_folder_is_named(folder, spoil, message, one_sentence):
    spoil(folder)
    with pytest.raises(ModelError, match=message) as refused:
        find(folder)
    assert str(folder) in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "path", "path": None}, "option 'model.path' is missing; source 'path' needs one."),
        ({"source": "asset", "path": ""}, "option 'model.path' is missing"),
        ({"source": "path", "path": "/no/such/folder/here"}, "neither a folder nor a hub id."),
        (
            {"source": "config", "path": None},
            "option 'model.architecture.model_type' is 'None', which transformers lacks",
        ),
        (
            {"source": "config", "path": None, "architecture": {"model_type": "brt"}},
            "'brt', which transformers lacks; did you",
        ),
        (
            {"source": "config", "path": None, "architecture": {"model_type": "bert", "hidden_size": "x"}},
            "option 'model.architecture' is no configuration of bert: ",
        ),
    ],
)
def test_a_model_that_is_not_there_is_refused(options, message, one_sentence):
    with pytest.raises(ModelError) as refused:
        find_model(name="m", **options)
    assert message in one_sentence(refused.value)


def test_a_hub_id_without_a_hub_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"^model 'org/name' is no folder here and cannot be had from the hub: .*\S$"):
        find("org/name")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_of_random_weights_depends_on_its_seed_alone(name):
    base = from_config(name)
    state = torch.get_rng_state()
    first = base.build(classifier(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(first.state_dict(), from_config(name).build(classifier(3)).state_dict())
    assert not same(first.state_dict(), from_config(name, seed=1).build(classifier(3)).state_dict())
    assert base.fingerprint == from_config(name).fingerprint != from_config(name, seed=1).fingerprint
    assert torch.isfinite(logits(first)).all()


def test_words_of_the_training_texts_make_a_tokenizer():
    tokenize = from_config("bert").processor
    vocabulary = ["b a A", "c b a", " ".join(f"w{i}" for i in range(20))]
    assert tokenize(["a B", "c zzz a a"], 3, vocabulary) == [[2, 3], [4, 1, 2]]
    ids = [i for row in tokenize(vocabulary, 99, vocabulary) for i in row]
    assert (min(ids), max(ids)) == (1, ARCHITECTURES["bert"]["vocab_size"] - 1)


@pytest.mark.parametrize(
    ("name", "head"),
    [("bert", {"classifier"}), ("roberta", {"classifier"}), ("distilbert", {"pre_classifier", "classifier"}),
     ("gpt2", {"score"})],
)  # fmt: skip
def test_the_head_is_reset_by_seed_alone_and_nothing_else_is(name, head):
    model = from_config(name).build(classifier(3))
    assert set(head_names(model)) == head
    before = {key: value.clone() for key, value in model.state_dict().items()}
    reset_head(model, 5)
    first = {key: value.clone() for key, value in model.state_dict().items()}
    changed = {key.partition(".")[0] for key in before if not torch.equal(before[key], first[key])}
    assert changed == head
    for key, value in model.state_dict().items():
        if key.partition(".")[0] in head:
            assert not value.any() if key.endswith("bias") else 0.005 < value.std() < 0.05
    torch.manual_seed(1)
    reset_head(model, 6)
    assert not same(model.state_dict(), first)
    reset_head(model, 5)
    assert same(model.state_dict(), first)


def test_a_classifier_loads_where_transformers_itself_loads_it(saved):
    theirs = AutoModelForSequenceClassification.from_pretrained(saved).eval()
    torch.testing.assert_close(logits(find(saved).build(classifier(2))), logits(theirs), rtol=0, atol=0)
    assert dataclasses.is_dataclass(find(saved))
