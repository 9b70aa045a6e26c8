"""Tasks of translation: pairs as people have them, every row accounted for, both kinds of models."""

import gzip
import json

import numpy as np
import pytest
from tiny_language import make_base as make_causal
from tiny_pairs import make_base, pairs, write_pairs

from rankexp.data.parallel import read_aligned, read_catalogue
from rankexp.data.table import TaskError
from rankexp.option_errors import ConfigError
from rankexp.tasks.base import make_task
from rankexp.tasks.translation.by_prompt import PromptedTranslationTask
from rankexp.tasks.translation.task import TranslationTask
from rankexp.testing.tasks import TaskConformance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def rows(tmp_path_factory):
    path = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")
    TestPairs.path = TestByPrompt.path = str(path)


class TestPairs(TaskConformance):
    def make_processor(self):
        return make_base().processor

    def make_task(self):
        return TranslationTask(path=self.path, prefix="translate: ", generate=["chrf"])


class TestByPrompt(TaskConformance):
    def make_processor(self):
        return make_causal().processor

    def make_task(self):
        return PromptedTranslationTask(path=self.path, instruction="Into German: {}", generate=["bleu"])


def load(said=None, **options):
    return TranslationTask(**options).load(make_base().processor, (said if said is not None else []).append)


def texts(data):
    tokenizer = make_base().processor.tokenizer
    return sorted(
        (tokenizer.decode(read), tokenizer.decode(written, skip_special_tokens=True))
        for split in data.splits.values()
        for read, written in zip(split.tokens, split.answers, strict=True)
    )


def write_aligned(folder, packed=False, ends="\n"):
    for side, name in enumerate(("en", "de")):
        text = ends.join(pair[side] for pair in pairs()) + ends
        data = gzip.compress(text.encode()) if packed else text.encode()
        (folder / (f"text.{name}.gz" if packed else f"text.{name}")).write_bytes(data)
    end = ".gz" if packed else ""
    return {"path": str(folder / f"text.en{end}"), "target_path": str(folder / f"text.de{end}")}


def test_the_same_pairs_in_every_form_give_the_same_rows(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    nested = [{"en": source, "de": target} for source, target in pairs()]
    pq.write_table(pa.table({"translation": nested}), tmp_path / "t.parquet")
    (tmp_path / "packed").mkdir()
    (tmp_path / "dos").mkdir()
    catalogue = "\n".join(f"msgid {json.dumps(s)}\nmsgstr {json.dumps(t, ensure_ascii=False)}\n" for s, t in pairs())
    (tmp_path / "t.po").write_text('msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n' + catalogue)
    found = [
        load(path=str(write_pairs(tmp_path / "pairs.jsonl"))),
        load(**write_aligned(tmp_path)),
        load(**write_aligned(tmp_path / "packed", packed=True)),
        load(**write_aligned(tmp_path / "dos", ends="\r\n")),
        load(path=str(tmp_path / "t.parquet"), source="en", target="de"),
        load(path=str(tmp_path / "t.po")),
    ]
    assert all(texts(data) == texts(found[0]) for data in found)
    assert len(texts(found[0])) == 160
    assert len({data.test_fingerprint for data in found}) == 1


def test_what_is_written_ends_and_what_is_read_has_its_prefix(tmp_path):
    data = load(path=str(write_pairs(tmp_path / "p.jsonl")), prefix="translate: ")
    assert all(ids[-1] == 256 for split in data.splits.values() for ids in split.answers)
    assert all(read.startswith("translate: ") for read, _ in texts(data))


def test_every_row_is_accounted_for(tmp_path):
    lines = [
        {"source": "a b", "target": "x y"}, {"source": "A  b", "target": "x y"}, {"source": "a b", "target": "z"},
        {"source": "", "target": "x"}, {"source": "c", "target": " "}, {"source": "d"}, {"source": 3, "target": "x"},
        *({"source": s, "target": t} for s, t in pairs(40)),
    ]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = []
    data = load(said, path=str(tmp_path / "p.jsonl"))
    left = {rule: found.rows for rule, found in data.summary.left_out.items()}
    beyond = left.pop("beyond_sizes", 0)
    assert left == {"repeated": 1, "empty_prompt": 1, "empty_answer": 1, "lacks_columns": 1, "not_text": 1}
    assert data.summary.read == 47 == data.summary.used + 5 + beyond
    groups = {g for split in data.splits.values() for g in split.group_ids.tolist()}
    assert len(groups) == data.summary.used - 1  # both translations of one text are in one split
    assert any("left out for repeating an earlier row" in line for line in said)


def test_catalogues_leave_out_what_is_unsure_plural_and_old(tmp_path):
    (tmp_path / "t.po").write_text(
        'msgid ""\nmsgstr ""\n\nmsgid "one"\nmsgstr "eins"\n\n#, fuzzy\nmsgid "two"\nmsgstr "zwo"\n\n'
        'msgid "%d day"\nmsgid_plural "%d days"\nmsgstr[0] "%d Tag"\nmsgstr[1] "%d Tage"\n\n'
        'msgid "%d Jahr"\nmsgid_plural "%d Jahre"\nmsgstr[0] "%d"\n\n'
        'msgid "three"\nmsgstr ""\n\n#~ msgid "gone"\n#~ msgstr "weg"\n\n'
        'msgctxt "menu"\nmsgid "open"\nmsgstr "öffnen"\n'
    )
    found = {pair.source: pair for pair in read_catalogue(tmp_path / "t.po")}
    assert set(found) == {"one", "two", "%d day", "%d Jahr", "three", "open"}
    assert found["%d Jahr"].forms == 2
    assert (found["two"].unsure, found["%d day"].forms, found["three"].target) == (True, 2, "")
    assert "t.po line " in found["open"].place


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (("a\nb\n", "x\n"), "has 2 lines and .* has 1; lines that belong together"),
        (("", ""), "has no lines"),
        ((b"\xff\xfea\x00", b"x"), "UTF-16"),
        ((b"\xe9\n", b"x\n"), "is not UTF-8"),
    ],
)
def test_files_of_lines_that_do_not_belong_together_are_refused(tmp_path, one_sentence, files, says):
    for name, content in zip(("a.en", "a.de"), files, strict=True):
        (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(TaskError, match=says):
        read_aligned(tmp_path / "a.en", tmp_path / "a.de")


def test_only_ends_of_lines_cut_a_file_of_lines(tmp_path):
    (tmp_path / "a.en").write_text("one\u2028still one\x0b\ntwo\n", encoding="utf-8")
    (tmp_path / "a.de").write_text("eins\nzwei", encoding="utf-8")
    assert [pair.source for pair in read_aligned(tmp_path / "a.en", tmp_path / "a.de")] == [
        "one\u2028still one\x0b",
        "two",
    ]


@pytest.mark.parametrize("text", ["", "no catalogue", 'msgid "a', "msgid\nmsgstr", "/etc/passwd", "\x00"])
def test_a_file_that_is_no_catalogue_is_refused(tmp_path, one_sentence, text):
    (tmp_path / "t.po").write_text(text)
    with pytest.raises(TaskError, match="is no catalogue of gettext|holds no text"):
        load(path=str(tmp_path / "t.po"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "quelle"}, "has no column 'quelle'"),
        ({"source_lang": "eng_Latn"}, "marks no languages"),
        ({"generate": ["rouge"]}, "scorer 'rouge', which is not there"),
        ({"num_beams": 0}, "task.num_beams"),
        ({"target_path": "nowhere.de"}, "cannot be read"),
    ],
)
def test_bad_options_are_one_sentence(tmp_path, one_sentence, options, says):
    path = write_pairs(tmp_path / "p.jsonl")
    with pytest.raises(ConfigError, match=says):
        make_task({"name": "translation", "path": str(path), **options}).load(make_base().processor, lambda _: None)


@pytest.mark.parametrize("instruction", ["Translate", "{} into {}"])
def test_an_instruction_needs_one_place_for_the_text(one_sentence, instruction):
    with pytest.raises(ConfigError, match="it needs one {} for the text"):
        make_task({"name": "translation_by_prompt", "path": "x", "instruction": instruction})


def test_a_column_of_other_languages_names_them(tmp_path, one_sentence):
    (tmp_path / "t.jsonl").write_text(json.dumps({"translation": {"en": "a", "fr": "b"}}) + "\n")
    with pytest.raises(TaskError, match="'translation' of .* holds 'en', 'fr'"):
        load(path=str(tmp_path / "t.jsonl"), source="en_XX", target="fr_XX")


def test_long_texts_are_cut_on_both_sides_and_still_end(tmp_path):
    said = []
    data = load(said, path=str(write_pairs(tmp_path / "p.jsonl")), max_length=12)
    assert (
        max(len(ids) for split in data.splits.values() for side in (split.tokens, split.answers) for ids in side) == 12
    )
    assert all(ids[-1] == 256 for split in data.splits.values() for ids in split.answers)
    assert any("are cut to 12 tokens, first" in line for line in said)


def test_groups_and_splits_of_the_owner_are_kept(tmp_path):
    names = ("train", "tune", "decide", "test")
    lines = [{"source": s, "target": t, "part": names[i % 4], "doc": i // 8} for i, (s, t) in enumerate(pairs(80))]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = load(path=str(tmp_path / "p.jsonl"), split="part")
    assert {name: len(split) for name, split in data.splits.items()} == dict.fromkeys(names, 20)
    with pytest.raises(TaskError, match="same group"):
        load(path=str(tmp_path / "p.jsonl"), split="part", group="doc")
    grouped = load(path=str(tmp_path / "p.jsonl"), group="doc")
    assert sum(len(set(split.group_ids.tolist())) for split in grouped.splits.values()) == 10


def test_by_prompt_the_text_stands_in_the_instruction(tmp_path):
    path = write_pairs(tmp_path / "p.jsonl")
    task = PromptedTranslationTask(path=str(path), instruction="Into German: {}!", generate=["chrf"])
    data = task.load(make_causal().processor, lambda _: None)
    prompt = data.splits["decide"].prompt_texts[0]
    assert "user\nInto German: " in prompt
    assert prompt.rstrip().endswith("assistant")
    assert np.mean([reference != "" for reference in data.splits["test"].references]) == 1
