"""Bad input gets one sentence that names it and an exit code, and nothing is trained."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from mounts import mounted
from thorough import later
from tiny import OPTIONS, rankexp, study_of, sweep, write_texts

pytestmark = pytest.mark.slow

Check = Callable[[object], str]
EVIL = "<script>alert(1)</script>"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (self.path,)


@pytest.fixture
def refused(tmp_path: Path, one_sentence: Check) -> Callable[..., str]:
    """Return what runs a command, checks that it was refused in one sentence, and returns the sentence."""

    def run(*words: str, code: int = 2) -> str:
        done = rankexp(tmp_path, *words)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        (said,) = [line.removeprefix("rankexp: ") for line in done.stderr.splitlines() if line.startswith("rankexp: ")]
        assert not list(tmp_path.glob("runs/trials/*")), "something was trained"
        return one_sentence(said)

    return run


def sweep_words(*more: str, path: str = "texts.csv") -> list[str]:
    return ["sweep", *OPTIONS, f"task.path={path}", *more]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../x", "'../../x'"),
        later("/etc/x", "'/etc/x'"),
        later("a\nb", "study"),
        later("'a\nb'", "study"),
        later("x" * 600, "at most 100"),
        later(f"'{EVIL}'", "script"),
        later("''", "study"),
    ],
)
def test_a_study_name_that_is_no_folder_name(refused: Callable[..., str], tmp_path: Path, name: str, said: str) -> None:
    assert said in refused("sweep", f"study={name}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("search.ranks=[4,-4]", "'search.ranks.1' is -4"),
        ("search.learning_rates=[0]", "'search.learning_rates.0' is 0"),
        ("train.setps=3", "'train.setps'; did you mean 'train.steps'?"),
        later("search.ranks=[3.5]", "'search.ranks.0' is 3.5"),
        later("search.ranks=[4,4]", "lists 4 twice"),
        later("trial.rank=-4", "'trial.rank' is -4"),
        later("lora.alpha=0", "'lora.alpha' is 0"),
        later("lora.alpha=nan", "'lora.alpha' is nan"),
        later("search.learning_rates=[-1e-3]", "'search.learning_rates.0' is -0.001"),
        later("trial.learning_rate=-1", "'trial.learning_rate' is -1"),
        later("serach.ranks=[4]", "'serach.ranks'; did you mean 'search.ranks'?"),
        later("task.pth=x", "'task.pth'; did you mean 'task.path'?"),
        later("model=minilmm", "there is no 'minilmm' in group 'model'; there is "),
    ],
)
def test_a_value_that_nothing_can_be_trained_with(refused: Callable[..., str], option: str, said: str) -> None:
    assert said in refused(*sweep_words(option))


@pytest.mark.thorough
@pytest.mark.parametrize("rank", [33, 64])
def test_a_rank_above_what_a_layer_holds(refused: Callable[..., str], tmp_path: Path, rank: int) -> None:
    write_texts(tmp_path / "texts.csv")
    said = refused(*sweep_words(f"search.ranks=[2,{rank}]"))
    assert f"rank {rank} exceeds 32" in said
    assert "'bert.encoder.layer.0" in said


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("+model._target_=os.mkdir", "'model._target_' is refused"),
        later("+contest.contenders.x={_target_: os.mkdir}", "_target_"),
        later("task._target_=os.mkdir", "'task._target_' is refused"),
    ],
)
def test_code_that_an_option_names(refused: Callable[..., str], option: str, said: str) -> None:
    assert said in refused(*sweep_words(option))


@pytest.mark.parametrize("place", ["task", later("lora"), later("search")])
def test_code_that_a_config_file_names(refused: Callable[..., str], tmp_path: Path, place: str) -> None:
    made = tmp_path / "made"
    text = f"defaults:\n  - config\n  - _self_\nstudy: mine\n{place}:\n  _target_: os.mkdir\n  _args_: [{made}]\n"
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text(text, encoding="utf-8")
    assert "mine.yaml is refused" in refused("sweep", "mine", "--config-dir", str(tmp_path / "conf"))
    assert not made.exists()


def model_folder(folder: Path, **config: object) -> Path:
    """A folder as a model of somebody else: a configuration and a tokenizer, and no weights yet."""
    folder.mkdir()
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    values = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 4, **sizes, **config}
    model = {"type": "WordLevel", "vocab": {"[PAD]": 0, "[UNK]": 1, "good": 2, "bad": 3}, "unk_token": "[UNK]"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    tokens = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    for name, value in (("config", values), ("tokenizer", tokenizer), ("tokenizer_config", tokens)):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return folder


def of_model(folder: Path) -> list[str]:
    return ["model=local", f"model.path={folder}"]


def test_a_model_with_code_of_its_own(refused: Callable[..., str], tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    folder = model_folder(tmp_path / "model", auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'made')!r})\n", encoding="utf-8")
    said = refused(*sweep_words(*of_model(folder)))
    assert "auto_map" in said
    assert str(folder) in said
    assert not (tmp_path / "made").exists()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors", "adapter_model.bin"])
def test_a_pickle_as_a_model(refused: Callable[..., str], tmp_path: Path, name: str) -> None:
    write_texts(tmp_path / "texts.csv")
    folder = model_folder(tmp_path / "model")
    (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    assert str(folder) in refused(*sweep_words(*of_model(folder)))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        later("texts.csv", "is not UTF-8"),
        later("texts.jsonl", "is not UTF-8"),
        later("texts.pkl", "a file ending in .csv"),
    ],
)
def test_a_pickle_as_data(refused: Callable[..., str], tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    message = refused(*sweep_words(path=name))
    assert said in message
    assert name in message
    assert not (tmp_path / "made").exists()


def rows(*changed: str, missing: str = "") -> str:
    """A file of 80 texts with splits, some of them changed, without those of a split."""
    splits = ["train", "tune", "decide", "test"]
    kept = [
        f"text {i} is {label},{label},{split}"
        for split in splits
        if split != missing
        for i, label in [(f"{split}{n}", n % 2) for n in range(20)]
    ]
    return "\n".join(["text,label,split", *kept, *changed, ""])


LAST = 82
"""The row after those of :func:`rows`; the header is the first."""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            rows("Text train0 is  0,0,test"),
            f"texts.csv row {LAST} in split 'test' has the same text as texts.csv row 2",
        ),
        later(rows(missing="test"), "split 'test' is empty"),
        later(rows("a new one,2,decide"), f"texts.csv row {LAST} in split 'decide' has label '2'"),
        later(rows("a new one,1.5,train"), f"texts.csv row {LAST} has label '1.5'"),
        later(rows("a new one,good,train"), f"texts.csv row {LAST} has label 'good'"),
        later(rows("a new one,,train"), f"texts.csv row {LAST} has label ''"),
        later(rows("a new one,1,train,more"), f"texts.csv row {LAST} has 4 fields"),
        later(rows("a new one,1"), f"texts.csv row {LAST} has 2 fields"),
        later(rows("caf\udce9,1,train"), f"texts.csv row {LAST} is not UTF-8"),
        later(rows("a new one,nan,train"), f"texts.csv row {LAST} has label 'nan'"),
        later(rows('"a new,1,train', 'one",1,train'), f"texts.csv row {LAST} has a quote that"),
        later(rows().replace("label", "label,label", 1), "has 3 fields, the header 4"),
        later(rows().replace("text,", "label,", 1), "has no column 'text'"),
        pytest.param(
            rows("one,1,decide", missing="decide"),
            f"'decide' has one group only, that of texts.csv row {LAST - 20}",
        ),
    ],
)
def test_data_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "texts.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert said in refused(*sweep_words("task.split=split"))


def pattern(**ranks: int) -> str:
    keys = ", ".join(f"{key}: {rank}" for key, rank in ranks.items())
    return f"+contest.contenders.x={{strategy: allocated, allocator: {{name: pattern, rank_pattern: {{{keys}}}}}}}"


def allocated(allocator: str) -> str:
    return f"strategy: allocated, allocator: {allocator}"


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        ("strategy: nonsense", "'nonsense'"),
        later(allocated("{name: pattern, r: 99}"), "rank 99"),
        later("strategy: grid, rnks: [4]", "'contest.contenders.x.rnks'; did you mean"),
        later("strategy: adalora, first: .9, last: .2", "first 0.9 must be below last 0.2"),
        later(allocated("by_depth"), "'contest.contenders.x.allocator' is 'by_depth'"),
        later(allocated("{name: by_dept}"), "'by_dept'"),
        later(allocated("{name: by_module, weights: {qeury: 1}}"), "'qeury', which ends no layer's name"),
    ],
)
def test_a_contender_that_cannot_be(refused: Callable[..., str], tmp_path: Path, contender: str, said: str) -> None:
    write_texts(tmp_path / "texts.csv")
    assert said in refused(*sweep_words(f"+contest.contenders.x={{{contender}}}", "contest.rank=2"))


@pytest.mark.thorough
def test_a_key_of_a_rank_map_that_matches_no_layer(refused: Callable[..., str], tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    said = refused(*sweep_words(pattern(querry=4), "contest.rank=2"))
    assert "'querry', which matches no layer; did you mean 'bert.encoder.layer." in said


@pytest.mark.thorough
def test_two_keys_of_a_rank_map_for_one_layer(refused: Callable[..., str], tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    said = refused(*sweep_words(pattern(query=4, **{"self.query": 2}), "contest.rank=2"))
    assert "'query'" in said
    assert "'self.query'" in said


def test_a_folder_that_is_read_only(refused: Callable[..., str], tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    with mounted(tmp_path / "runs", "ro"):
        said = refused(*sweep_words(), code=5)
    assert str(tmp_path / "runs") in said or "runs/" in said
    assert "Read-only file system" in said


@pytest.mark.thorough
def test_resume_takes_no_overrides(refused: Callable[..., str], tmp_path: Path) -> None:
    assert sweep(tmp_path, "workers=0").returncode == 0
    said = refused("resume", study_of(tmp_path).name, "lora.alpha=8")
    assert "'lora.alpha=8'" in said
    assert "a study goes on as it was begun" in said


def test_a_device_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.csv")
    said = refused(*sweep_words("device=cuda:77"))
    assert "'cuda:77'" in said
    assert "there is cpu" in said
