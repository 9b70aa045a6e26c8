"""A packaged GGUF file becomes a folder of safetensors: the same model, once."""

import shutil
from pathlib import Path

import pytest
import torch

from rankexp.assets import asset_folder
from rankexp.models.base import find_model
from rankexp.models.files import ModelError, hash_file
from rankexp.models.gguf import as_safetensors
from rankexp.models.kinds import CAUSAL

pytestmark = [pytest.mark.assets, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("asset") / "smollm2"
    found.mkdir()
    for path in asset_folder("smollm2").glob("*.gguf"):
        (found / path.name).symlink_to(path)
    return found


@pytest.mark.thorough
def test_it_is_the_model_that_transformers_reads_and_is_made_once(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    said: list[str] = []
    made = as_safetensors(folder, said.append)
    assert len(said) == 1
    (file,) = folder.glob("*.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32).eval()
    ours = AutoModelForCausalLM.from_pretrained(made).eval()
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    told = [
        AutoTokenizer.from_pretrained(made).apply_chat_template(chat, add_generation_prompt=True)["input_ids"],
        AutoTokenizer.from_pretrained(folder, gguf_file=file.name).apply_chat_template(
            chat, add_generation_prompt=True
        )["input_ids"],
    ]
    assert told[0] == told[1]
    with torch.inference_mode():
        torch.testing.assert_close(ours(torch.tensor(told[:1])).logits, theirs(torch.tensor(told[:1])).logits)
    hashes = {path.name: hash_file(path) for path in made.iterdir()}
    assert as_safetensors(folder, said.append) == made
    assert len(said) == 1
    (made / "converted.json").write_text("{}", encoding="utf-8")
    assert {path.name: hash_file(path) for path in as_safetensors(folder, said.append).iterdir()} == hashes
    assert len(said) == 2


def test_the_ready_model_answers() -> None:
    base = find_model(name="smollm2", source="asset", path="smollm2")
    model = base.build(CAUSAL)
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
    ids = torch.tensor(base.processor(["The capital of France is"], 16, []))
    with torch.inference_mode():
        best = int(model(ids).logits[0, -1].argmax())
    assert base.processor([" Paris"], 16, []) == [[best]]


def test_what_is_no_model_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "asset").mkdir()
    (tmp_path / "asset" / "broken.gguf").write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be converted"):
        as_safetensors(tmp_path / "asset", lambda _: None)
    assert [path.name for path in (tmp_path / "asset").iterdir()] == ["broken.gguf"]
    shutil.rmtree(tmp_path / "asset")
