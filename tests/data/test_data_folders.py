"""Folders of data: what `datasets` saves, what the hub lays out, and nothing from outside of them."""

import gzip
import json
import os

import pandas as pd
import pyarrow as pa
import pytest

from rankexp.data import sources
from rankexp.data.sources import read_source
from rankexp.data.table import TaskError

ROWS = [
    {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]} for i in range(5)
]


def arrow(path, rows):
    """Write a stream, as save_to_disk does."""
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def save(folder, *shards, **state):
    """Write what save_to_disk of datasets 5.2 writes."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(shards):05d}.arrow" for i in range(len(shards))]
    for name, rows in zip(names, shards, strict=True):
        arrow(folder / name, rows)
    about = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "705a7171d2fef6d6", "_split": None}
    (folder / "state.json").write_text(json.dumps(about | state))
    (folder / "dataset_info.json").write_text('{"features": {}}')


def write(folder, names, text='{"text": "a"}\n'):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".parquet"):
            pd.DataFrame({"text": ["a"]}).to_parquet(folder / name)
        else:
            (folder / name).write_text(text)


def read(path, **options):
    said = []
    source = read_source(str(path), said.append, **options)
    return [(part.split, part.name, len(part.table)) for part in source.parts], said


def refusal(path, one_sentence, **options):
    with pytest.raises(TaskError) as error:
        read_source(str(path), lambda _: None, **options)
    return one_sentence(error.value)


def test_a_saved_data_set_is_read_shard_by_shard(tmp_path):
    save(tmp_path / "d", ROWS[:3], ROWS[3:])
    found, said = read(tmp_path / "d")
    assert found == [("", "data-00000-of-00002", 3), ("", "data-00001-of-00002", 2)]
    assert said == []
    (first, _) = read_source(str(tmp_path / "d"), print).parts
    assert list(first.table.cells("messages")) == [row["messages"] for row in ROWS[:3]]
    assert first.table.place(1) == f"{tmp_path / 'd' / 'data-00000-of-00002.arrow'} row 2"


def test_fields_that_arrow_fills_with_null_are_not_there(tmp_path):
    save(
        tmp_path / "d",
        [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "calls": [{"b": 1}, {"c": 2}]}]}],
    )
    (part,) = read_source(str(tmp_path / "d"), print).parts
    assert part.table.cells("messages")[0] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "calls": [{"b": 1}, {"c": 2}]},
    ]


def test_of_several_saved_splits_train_is_read_and_that_is_said(tmp_path):
    save(tmp_path / "train", ROWS)
    save(tmp_path / "test", ROWS[:1])
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    found, said = read(tmp_path)
    assert found == [("train", "train/data-00000-of-00001", 5)]
    assert said == [f"of {tmp_path} split train is read, and not test"]
    assert [part[0] for part in read(tmp_path, split="test + train")[0]] == ["test", "train"]


def test_four_splits_of_rankexp_are_taken_as_given(tmp_path):
    write(tmp_path, ["train.jsonl", "tune.jsonl", "decide.jsonl", "test.jsonl"])
    assert read_source(str(tmp_path), print, split="train").given is False
    for name in ("tune", "decide"):  # words that the hub does not know stand in the names of shards only
        os.rename(tmp_path / f"{name}.jsonl", tmp_path / f"{name}-00000-of-00001.jsonl")
    source = read_source(str(tmp_path), print)
    assert source.given
    assert [part.split for part in source.parts] == ["train", "tune", "decide", "test"]


@pytest.mark.parametrize(("names", "found"), [
    (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], {"train": 2}),
    (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], {"train": 1}),
    (["train.jsonl", "dev.jsonl"], {"train": 1}),
    (["my_train_file.jsonl", "README.md"], {"train": 1}),
    (["train/a.jsonl", "train/b.jsonl", "test/a.jsonl"], {"train": 2}),
    (["data.jsonl", "dataset_infos.json", ".hidden.jsonl", ".git/train.jsonl"], {"": 1}),
    (["part_a.jsonl", "part_b.jsonl"], {"": 2}),
    (["data/train_sft-00000-of-00001.parquet"], {"train_sft": 1}),
    (["train.jsonl", "tune.jsonl", "decide.jsonl", "test.jsonl"], {"train": 1, "tune": 1, "decide": 1, "test": 1}),
    (["train/a.jsonl", "tune/a.jsonl", "decide/a.jsonl", "test/a.jsonl"], dict.fromkeys(["train", "tune", "decide", "test"], 1)),
    (["train.jsonl", "fine_tune.jsonl"], {"train": 1}),
])  # fmt: skip
def test_splits_are_told_by_names_as_the_hub_does(tmp_path, names, found):
    write(tmp_path, names)
    parts, _ = read(tmp_path)
    assert {split: sum(part[0] == split for part in parts) for split, _, _ in parts} == found


def test_files_of_no_split_beside_others_are_said(tmp_path):
    write(tmp_path, ["train.jsonl", "extra.jsonl"])
    found, said = read(tmp_path)
    assert found == [("train", "train", 1)]
    assert said == [f"of {tmp_path} 1 files of no split are not read, first extra.jsonl"]


def test_files_that_differ_in_their_endings_have_names_of_their_own(tmp_path):
    write(tmp_path, ["a.jsonl"])
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "b"}'))
    assert [name for _, name, _ in read(tmp_path)[0]] == ["/a.jsonl", "/a.jsonl.gz"]


CONFIGS = """---
license: mit
configs:
- config_name: main
  data_files:
  - split: train
    path: main/train-*
  - split: test
    path: main/test-*
- config_name: socratic
  data_files:
  - {split: train, path: [socratic/*.parquet]}
---
# GSM8K
"""


def test_subsets_are_those_of_the_readme(tmp_path, one_sentence):
    write(tmp_path, ["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet", "socratic/x.parquet"])
    (tmp_path / "README.md").write_text(CONFIGS)
    assert read(tmp_path, subset="main")[0] == [("train", "main/train-00000-of-00001", 1)]
    assert read(tmp_path, subset="socratic")[0] == [("train", "socratic/x", 1)]
    assert "has the subsets 'main', 'socratic'" in refusal(tmp_path, one_sentence)
    assert "option 'task.subset' is 'maim'" in refusal(tmp_path, one_sentence, subset="maim")
    os.remove(tmp_path / "socratic/x.parquet")
    assert "names files of split 'train' that the folder lacks" in refusal(tmp_path, one_sentence, subset="socratic")


def test_a_subset_may_be_a_folder_of_the_readme(tmp_path, one_sentence):
    write(tmp_path, ["en/train.jsonl", "en/test.jsonl", "fr/train.jsonl", "fr/more/train.jsonl"])
    folders = (
        "".join(f"- {{config_name: {name}, data_dir: {name}}}\n" for name in ("en", "fr", "de"))
        + "- {config_name: all, data_dir: .}\n- {config_name: dot, data_dir: ./en}\n"
    )
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{folders}---\n")
    assert read(tmp_path, subset="en")[0] == [("train", "en/train", 1)]
    assert read(tmp_path, subset="fr")[0] == [("train", "fr/train", 1), ("train", "fr/more/train", 1)]
    assert read(tmp_path, subset="dot")[0] == read(tmp_path, subset="en")[0]
    assert len(read(tmp_path, subset="all")[0]) == 3
    assert "has the subsets 'en', 'fr', 'de'" in refusal(tmp_path, one_sentence)
    assert "names a folder 'de/' that holds no data file" in refusal(tmp_path, one_sentence, subset="de")


def test_without_a_readme_a_subset_is_a_folder(tmp_path, one_sentence):
    write(tmp_path, ["main/train.jsonl", "other/train.jsonl"])
    assert read(tmp_path, subset="main")[0] == [("train", "main/train", 1)]
    assert "has no folder of that name; it has 'main', 'other'" in refusal(tmp_path, one_sentence, subset="min")


@pytest.mark.parametrize(("readme", "said"), [
    ("---\nconfigs: [a: b: c\n---\n", "begins with what is not YAML"),
    ("---\nconfigs:\n- config_name: a\n  data_files: [{split: 1, path: x}]\n---\n", "in a form that is not known"),
    ("---\nconfigs:\n- config_name: a\n  data_files: !!python/object/apply:os.system ['true']\n---\n", "not YAML"),
])  # fmt: skip
def test_a_readme_of_an_odd_kind_is_refused(tmp_path, one_sentence, readme, said):
    write(tmp_path, ["train.jsonl"])
    (tmp_path / "README.md").write_text(readme)
    assert said in refusal(tmp_path, one_sentence)


def test_patterns_reach_nothing_outside(tmp_path, one_sentence):
    write(tmp_path, ["outside.jsonl", "d/train.jsonl"])
    (tmp_path / "d/README.md").write_text("---\nconfigs:\n- config_name: a\n  data_files: ../outside.jsonl\n---\n")
    assert "that the folder lacks" in refusal(tmp_path / "d", one_sentence)


@pytest.mark.parametrize("what", ["file", "folder", "shard", "state.json", "dataset_dict.json", "README.md"])
def test_links_out_of_the_folder_are_refused(tmp_path, one_sentence, what):
    write(tmp_path, ["outside/train.jsonl"])
    folder = tmp_path / "d"
    if what == "shard":
        save(folder, ROWS)
        os.rename(folder / "data-00000-of-00001.arrow", tmp_path / "outside/x.arrow")
        os.symlink(tmp_path / "outside/x.arrow", folder / "data-00000-of-00001.arrow")
    elif "." in what:
        write(folder, ["train.jsonl"])
        os.symlink(tmp_path / "outside/train.jsonl", folder / what)
    else:
        folder.mkdir()
        os.symlink(tmp_path / ("outside/train.jsonl" if what == "file" else "outside"), folder / "train.jsonl")
    assert "leads out of the folder of the data" in refusal(folder, one_sentence)


@pytest.mark.parametrize(("state", "said"), [
    ({"_data_files": [{"filename": "../x.arrow"}]}, "does not list .arrow files of its folder"),
    ({"_data_files": [{"filename": "/etc/passwd"}]}, "does not list .arrow files of its folder"),
    ({"_data_files": []}, "does not list .arrow files of its folder"),
    ({"_data_files": "x"}, "does not list .arrow files of its folder"),
    ({"_data_files": 5}, "does not list .arrow files of its folder"),
    ({"_data_files": [{"filename": "gone.arrow"}]}, "cannot be read: No such file"),
    ({"_indices_data_files": [{"filename": "x.arrow"}]}, "was saved with a selection of rows"),
])  # fmt: skip
def test_a_state_of_an_odd_kind_is_refused(tmp_path, one_sentence, state, said):
    save(tmp_path / "d", ROWS, **state)
    assert said in refusal(tmp_path / "d", one_sentence)


@pytest.mark.parametrize("text", ["[]", "{", '{"splits": ["../x"]}', '{"splits": []}', "[" * 100_000])
def test_a_dictionary_of_an_odd_kind_is_refused(tmp_path, one_sentence, text):
    (tmp_path / "dataset_dict.json").write_text(text)
    refusal(tmp_path, one_sentence)


def test_what_is_no_arrow_is_refused(tmp_path, one_sentence):
    (tmp_path / "a.arrow").write_bytes(b"ARROW1 and more")
    assert "cannot be read as Arrow" in refusal(tmp_path / "a.arrow", one_sentence)
    (tmp_path / "b.arrow").write_bytes(b"\xff\xff\xff\xff\x10\x00")
    assert "cannot be read as Arrow" in refusal(tmp_path / "b.arrow", one_sentence)


def test_empty_and_mixed_folders_are_refused(tmp_path, one_sentence):
    assert "holds no data file" in refusal(tmp_path, one_sentence)
    (tmp_path / "load.py").write_text("raise SystemExit")
    assert refusal(tmp_path, one_sentence).endswith("a loading script is never run.")
    write(tmp_path, ["a.csv", "b.jsonl"])
    assert "several formats, a.csv and b.jsonl; name one file" in refusal(tmp_path, one_sentence)


def test_the_splits_that_there_are_are_named(tmp_path, one_sentence):
    write(tmp_path, ["val.jsonl", "test.jsonl"])
    assert "'task.source_split' is needed" in refusal(tmp_path, one_sentence)
    assert "has the splits 'test', 'validation'" in refusal(tmp_path, one_sentence, split="trian")


def test_a_file_by_itself_has_neither_splits_nor_subsets(tmp_path, one_sentence):
    write(tmp_path, ["a.jsonl"])
    assert read(tmp_path / "a.jsonl")[0] == [("", "", 1)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert read(tmp_path / "a.jsonl.gz")[0] == [("", "", 1)]
    assert "is a file by itself" in refusal(tmp_path / "a.jsonl", one_sentence, split="train")
    assert "No such file" in refusal(tmp_path / "gone.jsonl", one_sentence)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Return a repository as the hub's cache holds it: a snapshot of links into a folder of blobs."""
    import huggingface_hub

    root = tmp_path / "datasets--org--name"
    snapshot = root / "snapshots" / "abc"
    write(root / "blobs", ["1.parquet"])
    (snapshot / "data").mkdir(parents=True)
    os.symlink("../../../blobs/1.parquet", snapshot / "data/train-00000-of-00001.parquet")
    asked = []

    def download(name, **options):
        asked.append((name, options))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return snapshot, asked


def test_an_id_of_the_hub_is_fetched_and_read(hub):
    _, asked = hub
    found, said = read("org/name", revision="main")
    assert found == [("train", "data/train-00000-of-00001", 1)]
    assert "fetching data set org/name" in said[0]
    ((name, options),) = asked
    assert name == "org/name"
    assert options["repo_type"] == "dataset"
    assert options["revision"] == "main"
    assert not any(pattern.endswith((".py", ".pkl", "*")) for pattern in options["allow_patterns"])


def test_a_repository_whose_links_lead_elsewhere_is_refused(hub, one_sentence, tmp_path):
    snapshot, _ = hub
    write(tmp_path, ["x.parquet"])
    os.symlink(tmp_path / "x.parquet", snapshot / "data/test-00000-of-00001.parquet")
    assert "leads out of the folder" in refusal("org/name", one_sentence)


def test_what_the_hub_says_is_one_sentence(one_sentence, monkeypatch):
    import huggingface_hub

    def download(name, **options):
        raise OSError("no network.\nTry again. Later")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert "cannot be had from the hub: no network." in refusal("org/name", one_sentence)


def test_a_name_that_is_no_id_asks_nobody(one_sentence):
    assert "no file, no folder and no hub id" in refusal("no such: name", one_sentence)
    assert "ending in .csv" in refusal("./gone", one_sentence)


def test_the_real_client_reads_a_local_cache(tmp_path, monkeypatch):
    """The hub's own client finds a repository in its cache without a network."""
    import huggingface_hub

    commit = "0" * 40
    root = tmp_path / "datasets--org--name"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text(commit)
    write(root / "snapshots" / commit, ["data/train-00000-of-00001.parquet"])
    real = huggingface_hub.snapshot_download
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **o: real(name, cache_dir=tmp_path, local_files_only=True, **o),
    )
    assert sources.from_hub("org/name", None, print).name == commit
    assert read("org/name")[0] == [("train", "data/train-00000-of-00001", 1)]
