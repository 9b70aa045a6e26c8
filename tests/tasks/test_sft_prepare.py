"""From files to tokens in four splits: each row has one fate, and no prompt is in two splits."""

import csv
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chat_tokenizers import chat_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from thorough import later

import rankexp
from rankexp.data.rows import normalised
from rankexp.data.splits import SPLITS
from rankexp.data.table import TaskError
from rankexp.tasks.sft.dealing import deal_rows
from rankexp.tasks.sft.encode import Encoder
from rankexp.tasks.sft.prepare import Asked, prepare, read_rows
from rankexp.tasks.sft.rows import Conversation, Plain, SftRow
from rankexp.tasks.sft.templates import find_chat

SHARES = {"train": 0.5, "tune": 0.1, "decide": 0.2, "test": 0.2}
SHARED = Path(os.environ.get("RANKEXP_SHARED_DATA") or Path(rankexp.__file__).parents[2] / "shared" / "data")


def encoder(template="smollm2", loss="answers", named=None):
    tokenizer = chat_tokenizer(template)
    return Encoder(tokenizer, find_chat(tokenizer, named, {}), loss)


def run(path, encode=None, sizes=None, seed=0, max_length=4000, **asked):
    said = []
    encoding = encode or encoder()
    reading = read_rows(Asked(path=str(path), **asked), said.append, has_template=encoding.chat is not None)
    return prepare(reading, encoding, sizes or SHARES, seed, max_length, said.append), said


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def questions(number, answer="a"):
    return [{"question": f"q{i}", "answer": f"{answer}{i}"} for i in range(number)]


def row(i, prompt, answer="a", group=None, split=None):
    return SftRow(f"row-{i}", group, split, Plain(prompt, answer), f"f row {i}")


@st.composite
def tables(draw):
    cells = draw(
        st.lists(
            st.tuples(st.text("aAb ", min_size=1, max_size=3), st.sampled_from("xyX"), st.integers(0, 8)),
            min_size=12,
            max_size=50,
        )
    )
    return [row(i, prompt, answer, f"g-{group}" if group else None) for i, (prompt, answer, group) in enumerate(cells)]


@pytest.mark.slow
@given(tables(), st.integers(0, 2))
def test_no_prompt_and_no_group_is_in_two_splits(rows, seed):
    try:
        dealt = deal_rows(rows, SHARES, seed)
    except TaskError:
        return
    found = [one.example_id for split in dealt.splits.values() for one in split]
    assert len(set(found)) == len(found)
    assert len(found) + len(dealt.refused) == len(rows)
    for key in (
        lambda one: normalised(one.content.prompt),
        lambda one: one.group,
        lambda one: dealt.groups[one.example_id],
    ):
        values = [{key(one) for one in split} - {None} for split in dealt.splits.values()]
        assert len(set().union(*values)) == sum(map(len, values))
    hashes = [one.text_hash for split in dealt.splits.values() for one in split]
    assert len(set(hashes)) == len(hashes)
    assert deal_rows(rows, SHARES, seed) == dealt


def test_rows_are_joined_by_way_of_others():
    rows = [
        row(0, "p", "a", "g-1"),
        row(1, "q", "a", "g-1"),
        row(2, "q", "b", "g-2"),
        row(3, "r", "b", "g-2"),
        row(4, "s"),
    ]
    dealt = deal_rows([*rows, *(row(i, f"x{i}") for i in range(5, 20))], SHARES, 0)
    assert [dealt.groups[f"row-{i}"] for i in range(5)] == ["g-1", "g-1", "g-1", "g-1", "row-4"]
    assert dealt.same_prompt(rows) == 1


def test_of_equal_rows_the_first_is_kept_and_other_answers_stay():
    rows = [row(0, "p", "a"), row(1, " P", "A "), row(2, "p", "b"), *(row(i, f"x{i}") for i in range(3, 20))]
    dealt = deal_rows(rows, SHARES, 0)
    assert [(found.rule, found.place) for found in dealt.refused if found.rule == "repeated"] == [
        ("repeated", "f row 1")
    ]
    assert dealt.groups["row-0"] == dealt.groups["row-2"] == "row-0"


def talk(i, system, asked="Go.", answer=None, learned=(2,)):
    turns = [("system", system), ("user", asked), ("assistant", answer or f"a{i}")]
    messages = [{"role": role, "content": text} for role, text in turns]
    return SftRow(f"row-{i}", None, None, Conversation(messages, learned), f"f row {i}")


def test_where_all_users_say_the_same_the_system_prompt_is_what_is_asked(tmp_path):
    rows = [talk(i, f"task {i // 2}") for i in range(20)]
    dealt = deal_rows(rows, SHARES, 0)
    assert dealt.by_system
    assert len(set(dealt.groups.values())) == 10
    assert dealt.same_prompt(rows) == 10
    data, said = run(write(tmp_path / "f.jsonl", [{"messages": list(one.content.messages)} for one in rows]))
    assert len(data.splits["decide"].example_ids) > 1
    assert any("the system prompt counts as part of what a row asks" in sentence for sentence in said)
    mixed = deal_rows([*rows, *(talk(20 + i, f"persona {i}", f"q{i // 2}") for i in range(10))], SHARES, 0)
    assert mixed.by_system  # and yet a question is one, whatever the system prompt
    assert len({mixed.groups[f"row-{20 + i}"] for i in range(10)}) == 5
    questions = deal_rows([talk(i, f"persona {i}", f"q{i // 2}") for i in range(20)], SHARES, 0)
    assert not questions.by_system  # a question under two personas is one question
    assert len(set(questions.groups.values())) == 10


def test_rows_of_one_text_that_learn_other_answers_are_not_equal():
    rows = [talk(0, "s", "q", "a", (2,)), talk(1, "s", "q", "a", (0,)), talk(2, "s", "q", "a", (2,))]
    dealt = deal_rows([*rows, *(row(i, f"x{i}") for i in range(3, 20))], SHARES, 0)
    assert [one.place for one in dealt.refused if one.rule == "repeated"] == ["f row 2"]
    assert dealt.groups["row-0"] == dealt.groups["row-1"]


@pytest.mark.parametrize("form", ["plain", "alpaca"])
def test_turns_as_prompts_and_completions_are_a_chat_and_nothing_else(tmp_path, one_sentence, form):
    rows = [
        {"prompt": [{"role": "user", "content": f"q{i}"}], "completion": [{"role": "assistant", "content": f"a{i}"}]}
        for i in range(20)
    ]
    path = write(tmp_path / "f.jsonl", rows)
    _, said = run(path)
    assert said[0] == "read as prompts with completions: 'prompt', 'completion'"
    with pytest.raises(TaskError) as error:
        run(path, form=form)
    assert f"option 'task.form' is {form!r}, but the data has conversations" in one_sentence(error.value)


def test_given_splits_are_kept_and_checked(one_sentence):
    rows = [row(i, f"x{i}", split=SPLITS[i % 4]) for i in range(12)]
    dealt = deal_rows(rows, SHARES, 0)
    assert {name: len(split) for name, split in dealt.splits.items()} == dict.fromkeys(SPLITS, 3)
    with pytest.raises(TaskError) as error:
        deal_rows([*rows, row(12, "X0 ", "b", split="test")], SHARES, 0)
    assert "has the same prompt as f row 0 in split 'train'" in one_sentence(error.value)
    with pytest.raises(TaskError) as error:
        deal_rows([*rows, row(12, "y", split="dev")], SHARES, 0)
    assert "has split 'dev'" in one_sentence(error.value)


def test_conversations_that_differ_in_a_call_or_a_tool_are_not_equal():
    call = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    one = Conversation([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], [1])
    two = Conversation([one.messages[0], {"role": "assistant", "content": "a", "tool_calls": call}], [1])
    three = Conversation(one.messages, [1], [{"type": "function", "function": {"name": "f"}}])
    assert len({SftRow("x", None, None, content).text_hash for content in (one, two, three)}) == 3


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "folder"])
def test_every_format_gives_the_same_tokens(tmp_path, ending):
    rows = [{"prompt": f"q {i}", "completion": f" a {i}"} for i in range(20)]
    path = tmp_path / f"d.{ending}"
    if ending == "csv":
        with path.open("w", newline="") as file:
            (out := csv.DictWriter(file, ["prompt", "completion"])).writeheader()
            out.writerows(rows)
    elif ending == "json":
        path.write_text(json.dumps(rows))
    elif ending == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif ending == "folder":
        (path / "data").mkdir(parents=True)
        pd.DataFrame(rows).to_parquet(path / "data/train-00000-of-00001.parquet")
    elif ending == "jsonl.gz":
        import gzip

        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        write(path, rows)
    data, _ = run(path)
    reference, _ = run(write(tmp_path / "reference.jsonl", rows))
    assert data.summary.used == 20
    assert sorted(x.tolist() for s in data.splits.values() for x in s.tokens) == sorted(
        x.tolist() for s in reference.splits.values() for x in s.tokens
    )


def test_splits_do_not_depend_on_the_tokenizer(tmp_path):
    path = write(
        tmp_path / "d.jsonl",
        [
            {
                "messages": [
                    *([{"role": "system", "content": "s"}] if i % 5 == 0 else []),
                    {"role": "user", "content": f"q{i}"},
                    {"role": "assistant", "content": "a"},
                ]
            }
            for i in range(60)
        ],
    )
    smol, _ = run(path, encoder("smollm2"))
    gemma, said = run(path, encoder("gemma"))
    assert gemma.summary.left_out["template_refuses"].rows == 12
    assert any("first" in line and "System role not supported" in line for line in said)
    for name in SPLITS:
        assert set(gemma.splits[name].example_ids) < set(smol.splits[name].example_ids)


def test_what_a_split_holds(tmp_path):
    data, said = run(write(tmp_path / "d.jsonl", questions(40)))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 20, "tune": 4, "decide": 8, "test": 8}
    for split in data.splits.values():
        assert (
            len(split.example_ids)
            == len(split.group_ids)
            == len(split.tokens)
            == len(split.targets)
            == len(split.content_hashes)
        )
        assert split.example_ids.tolist() == split.group_ids.tolist()
        assert all(
            tokens.dtype == np.int32 and targets.dtype == np.bool_
            for tokens, targets in zip(split.tokens, split.targets, strict=True)
        )
        assert all(
            len(tokens) == len(targets) and targets.any() and not targets[0]
            for tokens, targets in zip(split.tokens, split.targets, strict=True)
        )
    assert "read as questions with answers: 'question', 'answer'; written by the chat template" in said
    assert "of 40 rows 40 are used" in said


def test_the_account_of_every_row(tmp_path, one_sentence):
    rows = [
        *questions(40),
        {"question": "q1", "answer": "a1"},
        {"question": "q1", "answer": "b"},
        {"question": "", "answer": "a"},
        {"question": "x", "answer": " "},
        {"question": "y", "answer": "<|im_end|>"},
        {"question": "long " * 300, "answer": "a"},
        {"question": "z", "answer": "long " * 300},
        {"question": "only"},
    ]
    data, said = run(
        write(tmp_path / "d.jsonl", rows), max_length=300, sizes={"train": 30, "tune": 3, "decide": 4, "test": 5}
    )
    summary = data.summary
    assert summary.read == len(rows) == summary.used + sum(found.rows for found in summary.left_out.values())
    counts = {name: found.rows for name, found in summary.left_out.items()}
    assert counts["repeated"] == counts["empty_prompt"] == counts["empty_answer"] == counts["lacks_columns"] == 1
    card = summary.card()
    json.dumps(card, allow_nan=False)
    assert card["duplicates"] == 1
    assert card["same_prompt"] == 1
    assert set(card["tokens"]) == {"median", "p95", "longest"}
    assert 0 < card["learned_share"] < 1
    assert card["turns"] == 2 * summary.used
    for line in said:
        assert "\n" not in line
    assert any("left out for an empty answer, first" in line for line in said)


def test_rows_that_are_cut_are_counted(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": " word" * (5 if i else 400)} for i in range(20)]
    data, said = run(write(tmp_path / "d.jsonl", rows), max_length=50)
    assert data.summary.truncated.rows == 1
    assert data.summary.truncated.first.endswith("d.jsonl row 1")
    assert data.summary.longest_tokens > 400
    assert any(line.startswith("1 row cut at the end, first") for line in said)
    assert max(len(tokens) for split in data.splits.values() for tokens in split.tokens) == 50


def test_several_files_have_names_of_their_own(tmp_path):
    write(tmp_path / "a.jsonl", questions(10))
    write(tmp_path / "b.jsonl", [{"question": f"r{i}", "answer": "a"} for i in range(10)])
    data, _ = run(tmp_path)
    names = {name for split in data.splits.values() for name in split.example_ids.tolist()}
    assert len(names) == 20
    assert {"a:row-1", "b:row-1"} <= names


def test_a_folder_whose_splits_are_those_of_rankexp(tmp_path):
    for i, name in enumerate(SPLITS):
        write(
            tmp_path / f"{name}-00000-of-00001.jsonl",
            [{"question": f"{name} {j}", "answer": "a"} for j in range(2 + i)],
        )
    data, _ = run(tmp_path)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 2, "tune": 3, "decide": 4, "test": 5}


@pytest.mark.parametrize(("rows", "asked", "said"), [
    ([], {}, "has no rows"),
    ([{"messages": []}], {}, "no row can be used: 1 left out for having no turns, first"),
    ([{"question": "q", "answer": ""}] * 3, {}, "no row can be used: 3 left out for an empty answer"),
    (questions(3), {}, "split 'tune' is empty"),
    ([{"a": 1}], {}, "option 'task.columns' says which column is which"),
    (questions(40), {"group": "g"}, "option 'task.group' is 'g'"),
    (questions(40), {"split": "s"}, "option 'task.split' is 's'"),
    (questions(40), {"form": "chat", "columns": {"text": "question"}}, "no conversation"),
    ([{"question": "q", "answer": f"a{i}"} for i in range(40)], {}, "in 1 group, which are never cut"),
])  # fmt: skip
def test_data_that_cannot_be_used_is_refused_in_a_sentence(tmp_path, rows, asked, said, one_sentence):
    with pytest.raises(TaskError) as error:
        run(write(tmp_path / "d.jsonl", rows), **asked)
    assert said in one_sentence(error.value)


def test_a_template_that_refuses_all_rows_of_a_split(tmp_path, one_sentence):
    path = write(
        tmp_path / "d.jsonl",
        [
            {
                "messages": [
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": f"q{i}"},
                    {"role": "assistant", "content": "a"},
                ]
            }
            for i in range(40)
        ],
    )
    with pytest.raises(TaskError) as error:
        run(path, encoder("gemma"))
    assert "split 'train' is empty: 20 left out since the chat template refuses them" in one_sentence(error.value)


def test_conversations_without_a_template_are_refused_before_any_work(tmp_path, one_sentence):
    path = write(
        tmp_path / "d.jsonl",
        [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 9,
    )
    with pytest.raises(TaskError) as error:
        run(path, encoder(None))
    assert "the tokenizer has no chat template" in one_sentence(error.value)


needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"needs the data of others in {SHARED}, or where RANKEXP_SHARED_DATA says"
)


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize(("name", "template", "named", "rows", "lost"), [
    ("identity.json", "smollm2", None, 91, {}),
    later("identity.json", None, None, 91, {}),
    later("alpaca_en_demo.json", "llama3", None, 999, {"repeated": 14}),
    ("alpaca_en_demo.json", None, None, 999, {"repeated": 14}),
    later("alpaca_en_demo.json", "gemma", None, 999, {"repeated": 14}),
    later("glaive_toolcall_en_demo.json", "qwen3", None, 300, {"repeated": 35}),
    ("glaive_toolcall_en_demo.json", "smollm2", "chatml", 300, {"repeated": 35}),
    ("glaive_toolcall_en_demo.json", "smollm2", None, 300, {"repeated": 35, "not_shown": 171}),
    later("glaive_toolcall_en_demo.json", "mistral", None, 300, {"repeated": 35}),
    ("gsm8k/test.jsonl", "smollm2", None, 1319, {}),
])  # fmt: skip
def test_data_of_others_is_read_as_it_is(name, template, named, rows, lost):
    data, _ = run(
        SHARED / name,
        encoder(template, named=named),
        sizes={"train": 0.5, "tune": 0.1, "decide": 0.15, "test": 0.15},
        max_length=10**5,
    )
    summary = data.summary
    assert summary.read == rows == summary.used + sum(found.rows for found in summary.left_out.values())
    counts = {rule: found.rows for rule, found in summary.left_out.items() if rule != "beyond_sizes"}
    assert counts.get("repeated", 0) == lost.get("repeated", 0)
    if "not_shown" in lost:
        assert counts["not_shown"] > 100
    else:
        assert counts.keys() <= lost.keys()
    for split in data.splits.values():
        assert all(targets.any() and not targets[0] for targets in split.targets)


@needs_shared
def test_each_turn_of_a_data_set_of_others_is_there():
    reading = read_rows(Asked(path=str(SHARED / "glaive_toolcall_en_demo.json")), lambda _: None, has_template=True)
    assert (len(reading.rows), reading.refused) == (300, ())
    messages = [message for row in reading.rows for message in row.content.messages]
    turns = Counter("call" if message.get("tool_calls") else message["role"] for message in messages)
    assert turns == {"user": 746, "assistant": 746, "call": 211, "tool": 211}
    assert sum(row.content.turns for row in reading.rows) == sum(turns.values())


@pytest.mark.slow
@needs_shared
def test_each_answer_of_gsm8k_is_what_is_learned():
    encode = encoder("smollm2")
    reading = read_rows(Asked(path=str(SHARED / "gsm8k"), source_split="train+test"), lambda _: None, has_template=True)
    assert len(reading.rows) == 7473 + 1319
    for one in reading.rows[::40]:
        encoded = encode.encode(one.content)
        answer = one.content.messages[-1]["content"]
        assert encode.tokenizer.decode(encoded.tokens[encoded.targets]) == f"{answer}<|im_end|>"
    assert Counter(one.example_id.split(":")[0] for one in reading.rows) == {"train": 7473, "test": 1319}
