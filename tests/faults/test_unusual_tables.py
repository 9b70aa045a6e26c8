"""Tables as people really have them go through a whole study: nothing fails after training."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from tiny import BAD, GOOD, rankexp, study_of

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SWEEP = [
    "sweep", "model=tiny", "task=csv", "device=cpu", "train.steps=8", "train.precision=float32", "search.ranks=[2,4]",
    "search.learning_rates=[3e-3]", "search.widen=0", "references.head=[3e-2]", "references.full=[3e-3]",
]  # fmt: skip


def swept(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    done = rankexp(folder, *SWEEP, *options)
    assert done.returncode == 0, done.stderr
    assert rankexp(folder, "verify", "rank_grid").returncode == 0
    return done


def texts(number: int = 120) -> list[str]:
    return [f"{(GOOD, BAD)[i % 2][i // 2 % 7]} w{i % 30} w{i}" for i in range(number)]


def data_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((study_of(folder) / "study.json").read_text(encoding="utf-8"))["data"])


def test_halves_of_characters_and_endless_labels(tmp_path: Path) -> None:
    digits = "9" * 5000
    lines = [
        f'{{"0": "{text} \\ud83d\\u0000\\u001b[2J", "1.5": {(digits, "1.0")[i % 2]}, "g": {i // 2}}}'
        for i, text in enumerate(texts())
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = swept(tmp_path, "task.path=a.jsonl", "task.text=0", "task.label=1.5", "task.group=g", "decide.verdict=false")
    assert "120 rows with half of a character (a lone surrogate) in '0'" in done.stderr
    assert data_of(tmp_path)["labels"] == ["1", digits]


def test_a_parquet_file_in_a_folder_with_an_unusual_name(tmp_path: Path) -> None:
    folder = tmp_path / "größe [1]"
    folder.mkdir()
    pd.DataFrame({"text": texts(), "label": [i % 2 == 0 for i in range(120)]}).to_parquet(folder / "TEXTS.Parquet")
    swept(tmp_path, f"task.path='{folder}/TEXTS.Parquet'")
    rows = data_of(tmp_path)["rows"]
    assert rows == {"read": 120, "used": 120, "left_out": {}, "lost_labels": [], "said": ["of 120 rows 120 are used"]}


def test_quotes_that_begin_texts_in_a_study_of_tabs(tmp_path: Path) -> None:
    quoted = [f'"{text}' if i % 5 == 0 else f'{text}"' if i % 7 == 0 else text for i, text in enumerate(texts())]
    lines = [f"{text}\t{'pn'[i % 2]}" for i, text in enumerate(quoted)]
    (tmp_path / "a.tsv").write_text("\n".join(["text\tlabel", *lines]), encoding="utf-8")
    done = swept(tmp_path, "task.path=a.tsv")
    assert (
        "24 rows with a field that begins with a quote, which is read as part of it, first a.tsv row 2" in done.stderr
    )
    assert "of 120 rows 120 are used" in done.stderr
