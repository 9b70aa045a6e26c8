"""Text by itself: begin and end tokens, the edge between prompt and completion, and where rows are cut."""

import numpy as np
import pytest
from chat_tokenizers import chat_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from rankexp.data.table import TaskError
from rankexp.tasks.sft.encode import Encoded, Encoder
from rankexp.tasks.sft.rows import Plain
from rankexp.tasks.sft.rules import RowError
from rankexp.tasks.sft.shapes import alpaca_prompt

KINDS = ("byte_level", "metaspace")


def encoder(kind="byte_level", loss="answers", **options):
    return Encoder(chat_tokenizer(None, kind, **options), None, loss)


def begun(kind="byte_level"):
    """A tokenizer that puts a begin token before each text."""
    return Encoder(chat_tokenizer("llama2", kind, begins=True), None)


def texts(encode, plain):
    encoded = encode.encode(plain)
    read = encode.tokenizer.decode
    return read(encoded.tokens[~encoded.targets]), read(encoded.tokens[encoded.targets])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "answer"), [
    ("What?", " Paris."), ("Q: What?\nA:", " Paris is the capital."), ("日", " 🙂"), (alpaca_prompt("What?"), "Paris."),
])  # fmt: skip
def test_the_completion_and_its_end_are_learned(kind, before, answer):
    encoded = encoder(kind).encode(Plain(before, answer))
    assert encoded.tokens.dtype == np.int32
    assert encoded.targets.dtype == np.bool_
    shown, learned = texts(encoder(kind), Plain(before, answer))
    assert shown.strip() == before.strip()
    assert learned.strip() == f"{answer}<|endoftext|>".strip()


@pytest.mark.parametrize(
    ("before", "answer"), [("A: ", "yes"), ("a\n", "\nb"), ("the ca", "pital of"), ("x ", " y"), ("q", "a")]
)
def test_an_edge_inside_of_a_token_is_where_a_model_meets_it(before, answer):
    """As a whole the text has a token over the edge; then prompt and completion are made tokens of by themselves."""
    encode = encoder()
    encoded = encode.encode(Plain(before, answer))
    alone = encode.tokenizer(before, add_special_tokens=False)["input_ids"]
    assert encoded.tokens[: len(alone)].tolist() == alone
    assert encoded.targets.tolist() == [False] * len(alone) + [True] * (len(encoded.tokens) - len(alone))
    assert texts(encode, Plain(before, answer)) == (before, f"{answer}<|endoftext|>")


def test_where_spaces_are_marks_one_before_an_answer_may_be_its_own():
    encode = encoder("metaspace")
    assert texts(encode, Plain("A: ", "is")) == ("A:", "is<|endoftext|>")
    assert encode.encode(Plain("A: ", "is")).tokens.tolist() == encode.encode(Plain("A:", " is")).tokens.tolist()
    with pytest.raises(RowError) as error:
        encode.encode(Plain("日本", "語"))  # a token of its own, which no space begins
    assert error.value.rule == "inexact_tokens"


def test_one_text_is_learned_but_for_its_first_token():
    encoded = encoder().encode(Plain("", "Paris is the capital."))
    assert encoded.targets.tolist() == [False] + [True] * (len(encoded.tokens) - 1)
    encoded = begun().encode(Plain("", "Paris"))
    assert encoded.tokens[0] == begun().tokenizer.bos_token_id
    assert not encoded.targets[0]
    assert encoded.targets[1:].all()


@pytest.mark.parametrize("kind", KINDS)
def test_neither_begin_nor_end_comes_twice(kind):
    encode = begun(kind)
    plain, marked = (encode.encode(Plain("", text)).tokens.tolist() for text in ("Paris", "<s>Paris</s>"))
    for tokens in (plain, marked):
        assert tokens.count(encode.tokenizer.bos_token_id) == tokens.count(encode.tokenizer.eos_token_id) == 1
    assert (
        encode.tokenizer.decode(plain).replace(" ", "")
        == encode.tokenizer.decode(marked).replace(" ", "")
        == "<s>Paris</s>"
    )
    shown, learned = texts(encode, Plain("<s>[INST] a [/INST]", "b</s>"))
    assert (shown.count("<s>"), learned.count("</s>")) == (1, 1)


def test_text_with_special_tokens_is_taken_as_it_is_where_the_user_wrote_all_of_it():
    assert texts(encoder(), Plain("<|im_start|>user\na<|im_end|>\n", "b<|im_end|>"))[1] == "b<|im_end|><|endoftext|>"
    with pytest.raises(RowError) as error:
        encoder().encode(Plain(alpaca_prompt("a"), "b<|endoftext|>c", quoted=True))
    assert error.value.rule == "special_tokens"


def test_everything_is_learned_on_demand():
    encoded = encoder(loss="everything").encode(Plain("What?", " Paris."))
    assert encoded.targets.tolist() == [False] + [True] * (len(encoded.tokens) - 1)


def test_a_row_is_cut_at_the_end():
    encoded = encoder().encode(Plain("What?", " Paris is the capital."))
    first = int(np.flatnonzero(encoded.targets)[0])
    cut = encoded.cut(first + 1)
    assert len(cut.tokens) == len(cut.targets) == first + 1
    assert cut.length == len(encoded.tokens)
    assert cut.targets.sum() == 1
    assert encoded.cut(10**6).tokens.tolist() == encoded.tokens.tolist()
    assert np.concatenate([cut.prompt, cut.answer]).tolist() == encoded.tokens.tolist()
    assert len(cut.prompt) == first
    with pytest.raises(RowError) as error:
        encoded.cut(first)
    assert error.value.rule == "no_answer_left"
    ids = np.array([1], np.int32)
    with pytest.raises(RowError) as error:
        Encoded(ids, np.array([False]), 1, ids, ids[1:]).cut(5)
    assert error.value.rule == "no_answer"


def test_a_tokenizer_without_an_end_or_without_places_is_refused(one_sentence):
    with pytest.raises(TaskError) as error:
        encoder(eos_token=None).encode(Plain("a", "b"))
    assert "no end token" in one_sentence(error.value)

    class Slow:
        is_fast = False

    with pytest.raises(TaskError) as error:
        Encoder(Slow(), None)
    assert "tokenizer.json" in one_sentence(error.value)


def test_tokenizers_that_cannot_give_a_text_back_are_believed():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "what": 1, "paris": 2, "</s>": 3, "?": 4}, "<unk>"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    encode = Encoder(PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", unk_token="<unk>"), None)
    encoded = encode.encode(Plain("What ?", " PARIS Berlin"))
    assert encoded.tokens.tolist() == [1, 4, 2, 0, 3]
    assert encoded.targets.tolist() == [False, False, True, True, True]


TEXT = st.text(st.sampled_from("ab \n\té日🙂.'"), min_size=1, max_size=10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(TEXT, TEXT)
def test_random_edges_are_exact_or_refused(kind, before, answer):
    encode = encoder(kind)
    try:
        shown, learned = texts(encode, Plain(before, answer))
    except RowError as error:
        assert error.rule == "inexact_tokens"
        assert kind == "metaspace"
        return
    if kind == "byte_level":
        assert (shown, learned) == (before, f"{answer}<|endoftext|>")
    assert "".join((shown + learned).split()) == "".join(f"{before}{answer}<|endoftext|>".split())
