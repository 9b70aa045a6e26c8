"""Studies of a model whose frozen weights are in bfloat16."""

import io

import pytest
import torch
from test_language_studies import CONTENDERS, run, study_of
from tiny_language import MODELS

from rankexp.config import StudyConfig
from rankexp.option_errors import ConfigError
from rankexp.options import parse
from rankexp.progress import Display
from rankexp.study.session import run_study
from rankexp.training.device import find_precision

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


@pytest.mark.thorough
def test_a_whole_study_with_every_kind_of_contender(tmp_path, monkeypatch):
    monkeypatch.setattr("rankexp.study.session.write_report", lambda study: study.store.folder / "report/report.html")
    named = ("nested", "adalora", "gradient_spectrum", "dora", "pissa", "eva")
    base = study_of(tmp_path)
    config = study_of(
        tmp_path,
        model={"name": "tiny", "source": "config", "architecture": MODELS["llama"], "dtype": "bfloat16"},
        train={"steps": 8, "batch_size": 16, "precision": "auto", "warmup_steps": 1},
        contest={"rank": 2, "contenders": {name: CONTENDERS[name] for name in named}},
        references={"head": [], "full": [1e-3]},
    )
    assert config.study_folder != base.study_folder
    study = run(config)
    assert study.record.model["dtype"] == "bfloat16"
    assert study.record.settings["precision"] == "bfloat16"
    assert {trial.result.status for trial in study.by_key.values()} == {"completed"}
    assert study.complete


def test_float32_products_of_bfloat16_weights_are_refused(tmp_path):
    assert find_precision("auto", CPU, "bfloat16") == ("bfloat16", 0.0)
    values = study_of(tmp_path).to_dict()
    values["model"]["dtype"] = "bfloat16"
    with pytest.raises(
        ConfigError, match=r"option 'train.precision' is 'float32', and the model's weights are in bfloat16"
    ):
        run_study(parse(StudyConfig, values), Display(io.StringIO()))


def test_studies_of_before_keep_their_folder(tmp_path):
    config = study_of(tmp_path)
    values = config.to_dict()
    assert values["model"]["dtype"] == "auto"
    silent = {"generate": [], "answer": None, "max_new_tokens": 256, "retain": None}
    values["task"] |= silent
    assert parse(StudyConfig, values).study_folder == config.study_folder
    values["task"]["generate"] = ["chrf"]
    assert parse(StudyConfig, values).study_folder != config.study_folder
