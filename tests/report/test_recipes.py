"""What other trainers are told: only keys that they read, and what they cannot be told is said."""

from __future__ import annotations

import ast
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fake_study import make_study

from rankexp.analysis.study import load_study
from rankexp.cli.commands.recipe import TOOLS
from rankexp.cli.main import main
from rankexp.option_errors import ConfigError
from rankexp.report.document import document
from rankexp.report.recipe import Setting, setting_of, write_recipe
from rankexp.report.recipes import recipes

KEYS = json.loads((Path(__file__).parent / "recipe_keys.json").read_text(encoding="utf-8"))
"""By tool, from its published package: see bench/recipe_keys.py."""

PLAIN = Setting(
    model="models/my-llm", revision=None, task_type="CAUSAL_LM", rank=8, ranks={}, alpha=16.0, rslora=False, dropout=0.1,
    method="lora", initialisation="default", loraplus=1.0, targets=["q_proj", "v_proj"], saved=[], rows=[], rate=1e-3,
    steps=60, batch=4, accumulation=2, schedule="linear", warmup=6, decay=0.01, clip=1.0, seed=3, half=True, longest=512,
    nf4=False,
)  # fmt: skip
OTHERS = {
    "plain": {},
    "map": {"ranks": {"model.layers.0.self_attn.q_proj": 4, "model.layers.1.self_attn.q_proj": 2}},
    "rslora": {"rslora": True, "schedule": "constant"},
    "dora": {"method": "dora", "schedule": "cosine"},
    "pissa": {"initialisation": "pissa"},
    "eva": {"initialisation": "eva"},
    "loraplus": {"loraplus": 4.0},
    "beside": {"saved": ["embed_tokens"], "rows": [1, 2]},
    "four bits": {"nf4": True, "revision": "main", "longest": None},
    "early": {"patience": 3, "every": 10},
    "all of the mlp": {"targets": ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], "model": ""},
}


def keys_of(language: str, text: str) -> set[str]:
    if language == "python":
        calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
        return {key.arg for call in calls for key in call.keywords if key.arg}
    if language == "yaml":
        return set(yaml.safe_load(text))
    words = shlex.split(text.replace("\\\n", " "))
    return {word.removeprefix("--") for word in words if word.startswith("--") and word != "--config"} | {
        word.partition("=")[0] for word in words if "=" in word
    }


MADE_BY_TRL = {"model", "args", "peft_config", "train_dataset", "processing_class"}
"""Arguments of TRL's own trainer."""


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("name", OTHERS)
def test_a_recipe_has_only_keys_that_the_tool_reads(tool, name):
    recipe, setting = recipes()[tool], replace(PLAIN, **OTHERS[name])
    refused = {("torchtune", "beside"): "alone, in every block", ("unsloth", "eva"): "does not start factors"}
    if (tool, name) in refused:
        with pytest.raises(ConfigError, match=refused[tool, name]):
            recipe.write(setting)
        return
    text = recipe.write(setting).text
    found = keys_of(recipe.language, text) - MADE_BY_TRL
    assert found <= set(KEYS[tool]), found - set(KEYS[tool])
    assert len(found) >= 14
    for value in (setting.rank, setting.steps, setting.batch, setting.accumulation, setting.warmup, setting.seed):
        assert str(value) in text


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_is_not_told_is_said(tool):
    early = recipes()[tool].write(replace(PLAIN, patience=3, every=10))
    assert any("ended early: after 3 evaluations" in note for note in early.notes)
    if tool not in ("unsloth", "peft", "trl"):
        from_inputs = recipes()[tool].write(replace(PLAIN, initialisation="eva"))
        assert any("EVA cannot be told" in note or "Other starts" in note for note in from_inputs.notes)
        assert "eva" not in from_inputs.text
    pinned = recipes()[tool].write(replace(PLAIN, revision="v1.2"))
    assert ("v1.2" in pinned.text) is (tool not in ("peft", "torchtune"))


def test_a_module_that_unsloth_does_not_train_whole_is_refused():
    with pytest.raises(ConfigError, match="norms whole, and not mlp"):
        recipes()["unsloth"].write(replace(PLAIN, saved=["lm_head", "model.norm", "mlp"]))


def test_every_tool_of_the_command_is_there_and_no_other():
    assert set(recipes()) == set(TOOLS) == set(KEYS)
    assert list(recipes()) == list(TOOLS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_pefts_lines_are_its_configuration(tmp_path):
    setting = replace(PLAIN, ranks={"layers.1.q_proj": 4}, rslora=True, half=False)
    names = {}
    exec(recipes()["peft"].write(setting).text, names)
    config, arguments = names["config"], names["arguments"]
    assert (config.r, config.lora_alpha, config.use_rslora) == (8, 16, True)
    assert (config.lora_dropout, config.target_modules) == (0.1, {"q_proj", "v_proj"})
    assert config.rank_pattern == {"layers.1.q_proj": 4}
    assert (arguments.max_steps, arguments.learning_rate, arguments.warmup_steps) == (60, 1e-3, 6)
    assert (arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps) == (4, 2)
    assert (arguments.lr_scheduler_type, arguments.weight_decay, arguments.seed) == ("linear", 0.01, 3)


def test_the_scale_of_torchtune_is_that_of_rslora():
    plain, written = (recipes()["torchtune"].write(replace(PLAIN, rank=16, rslora=on)) for on in (False, True))
    assert "model.lora_alpha=16 " in plain.text
    assert "model.lora_alpha=64 " in written.text  # over 16 is 16 over 4
    assert any("rsLoRA" in note for note in written.notes)


@pytest.mark.parametrize("tool", ["axolotl", "llamafactory"])
def test_an_alpha_that_is_no_whole_number_is_refused_where_only_those_go(tool):
    with pytest.raises(ConfigError, match=r"alpha is 12\.5"):
        recipes()[tool].write(replace(PLAIN, alpha=12.5))
    assert "12.5" in recipes()["peft"].write(replace(PLAIN, alpha=12.5)).text


@pytest.mark.parametrize("quote", ['a"b', "a'b", "a\\b", "ä: b", "# c"])
def test_strange_names_stay_what_they_are(quote):
    for tool in ("trl", "unsloth"):
        text = recipes()[tool].write(replace(PLAIN, model=quote)).text
        constants = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        assert quote in constants
    assert yaml.safe_load(recipes()["axolotl"].write(replace(PLAIN, model=quote)).text)["base_model"] == quote
    assert quote in shlex.split(recipes()["swift"].write(replace(PLAIN, model=quote)).text.replace("\\\n", " "))


@pytest.mark.slow
def test_a_study_has_the_recipe_of_its_rank_and_a_classifier_pefts_alone(tmp_path, capsys):
    folder = make_study(tmp_path, seeds=5)
    study = load_study(folder)
    assert setting_of(study, study.chosen_trials(8)[0]).rank == 8
    doc = document(study)
    assert set(doc["recipes"]) == {"peft"}
    assert "r=8," in doc["recipes"]["peft"]["text"]
    assert main(["recipe", str(folder), "--for", "peft"]) == 0
    assert "r=8," in capsys.readouterr().out
    assert main(["recipe", str(folder), "--for", "peft", "--rank", "4"]) == 0
    assert "r=4," in capsys.readouterr().out
    assert main(["recipe", str(folder), "--for", "swift"]) == 2
    assert "ms-swift trains causal language models" in capsys.readouterr().err
    assert main(["recipe", str(folder), "--for", "peft", "--rank", "5"]) == 2
    assert "no trial of rank 5 in its decision; ranks there are 4, 8, 16, 32" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tool_of_one_rank_is_told_the_best_of_those(tmp_path, monkeypatch):
    study = load_study(make_study(tmp_path, seeds=5))
    uniform = study.chosen_trials(8)[0]
    real = setting_of

    def of(one, trial):
        made = replace(real(one, trial), task_type="CAUSAL_LM", targets=["q_proj"], saved=[], model="m")
        return made if trial is uniform else replace(made, ranks={"layers.0.q_proj": 2})

    monkeypatch.setattr("rankexp.report.recipe.setting_of", of)
    other = study.chosen_trials(4)[0].key
    for tool, recipe in recipes().items():
        written = write_recipe(study, recipe, key=other)
        if recipe.maps:
            assert "layers.0.q_proj" in written.text, tool
        else:
            assert "layers.0" not in written.text, tool
            assert "one rank for all layers; this is the best of those, rank 8" in written.notes[0]


@pytest.mark.slow
def test_methods_of_rankexp_alone_have_no_recipe(tmp_path):
    study = load_study(make_study(tmp_path))
    head = next(trial for trial in study.by_key.values() if trial.spec.method == "head")
    with pytest.raises(ConfigError, match="method=head, for which there is no recipe"):
        setting_of(study, head)
