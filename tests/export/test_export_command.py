"""``rankexp export`` on a study of a person's own model and data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from architectures import CASES, save, write_texts
from tiny import rankexp

from rankexp.analysis.study import load_study
from rankexp.export import export
from rankexp.option_errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of transformers and PEFT, about what they read

OPTIONS = [
    "search.ranks=[2,4]", "search.learning_rates=[1e-2]", "search.widen=0", "decide.seeds=3", "references.head=[1e-2]",
    "references.full=[]", "train.steps=4", "train.batch_size=8", "train.precision=float32", "tracking=none", "threads=1",
    "jobs=1", "study=s", "task=csv", "task.path=texts.csv", "model=local", "model.path=model",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    save(CASES["bert"], folder / "model")
    write_texts(folder / "texts.csv", CASES["bert"].labels, rows=80)
    done = rankexp(folder, "sweep", *OPTIONS)
    assert done.returncode == 0, done.stderr
    return folder


def study_in(home: Path) -> Path:
    (found,) = (home / "runs/studies").glob("s-*")
    return found


@pytest.mark.parametrize("name", ["peft", "merged"])
def test_it_is_written_measured_and_described(home, name):
    done = rankexp(home, "export", "s", "--format", name, "--rank", "4", "--out", name)
    assert done.returncode == 0, done.stderr
    assert "a logit differs by at most" in done.stdout
    card = (home / name / "README.md").read_text()
    study = load_study(study_in(home))
    chosen = [trial.key for trial in study.chosen_trials(4) if trial.key in card]
    best = max(study.chosen_trials(4), key=lambda trial: trial.result.metrics["tune"]["accuracy"])
    assert chosen == [best.key]
    seeds = len(study.chosen_trials(4))
    assert (f"the best on tune of {seeds} seeds" if seeds > 1 else "the only one of its rank") in card
    (python,) = re.findall(r"```python\n(.*?)```", card, re.S)
    names = {}
    exec(python, names)
    assert type(names["model"]).__name__.startswith("Peft" if name == "peft" else "Bert")
    assert {path.name for path in (home / name).iterdir()} >= {"README.md", "study.yaml"}


def test_the_configuration_on_the_card_asks_the_same_study(home, tmp_path):
    done = rankexp(home, "export", "s", "--rank", "2", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (command,) = re.findall(r"```bash\n(.*?)```", (tmp_path / "out/README.md").read_text(), re.S)
    again = rankexp(home, *command.split()[1:], "tracking=none", "jobs=1", "threads=1")
    assert again.returncode == 0, again.stderr
    assert "trained   0 trials" in again.stdout
    assert len(list((home / "runs/studies").iterdir())) == 1


def test_nothing_that_is_there_is_written_over(home, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for out in (taken, tmp_path / "link", taken / "mine"):
        done = rankexp(home, "export", "s", "--rank", "2", "--out", str(out))
        assert done.returncode == 2
        assert "where something is already" in done.stderr
    assert (taken / "mine").read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rank", "3"], "no adapter of rank 3 in its decision; there are adapters of 2, 4"),
        (["--trial", "0" * 20], "no finished trial '00000000000000000000'"),
        (["--format", "serving", "--rank", "2"], "classifier whole, which servers of adapters do not take"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence_and_leaves_nothing(home, tmp_path, words, said):
    done = rankexp(home, "export", "s", *words, "--out", str(tmp_path / "a" / "out"))
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "a").iterdir() if (tmp_path / "a").exists() else [])


def test_a_trial_that_is_no_lora_and_one_by_its_key(home, tmp_path, monkeypatch):
    study = load_study(study_in(home))
    heads = [trial for trial in study.by_key.values() if trial.spec.method == "head"]
    with pytest.raises(ConfigError, match="no LoRA, but method=head"):
        export(study_in(home), "peft", tmp_path / "head", trial=heads[0].key)
    one = study.chosen_trials(2)[-1].key
    monkeypatch.chdir(home)
    done = export(study_in(home), "peft", tmp_path / "key", trial=one)
    assert done.key == one
    config = json.loads((tmp_path / "key/adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == home / "model"


def test_an_adapter_that_is_not_what_was_recorded_is_no_export(home, tmp_path):
    study = load_study(study_in(home))
    trial = study.chosen_trials(4)[0]
    file = trial.adapter / "adapter_model.safetensors"
    kept = file.read_bytes()
    try:
        file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        done = rankexp(home, "export", "s", "--trial", trial.key, "--out", str(tmp_path / "out"))
        assert done.returncode == 3, done.stderr
        file.unlink()
        (tmp_path / "elsewhere").write_bytes(kept)
        file.symlink_to(tmp_path / "elsewhere")
        linked = rankexp(home, "export", "s", "--trial", trial.key, "--out", str(tmp_path / "out"))
        assert linked.returncode == 3, linked.stderr
    finally:
        file.unlink()
        file.write_bytes(kept)
    assert not (tmp_path / "out").exists()


def test_data_that_have_changed_are_told(home, tmp_path):
    text = (home / "texts.csv").read_text()
    try:
        (home / "texts.csv").write_text(text.replace("good", "fine"))
        done = rankexp(home, "export", "s", "--rank", "2", "--out", str(tmp_path / "out"))
    finally:
        (home / "texts.csv").write_text(text)
    assert done.returncode == 2
    assert "the data has changed since study" in done.stderr
