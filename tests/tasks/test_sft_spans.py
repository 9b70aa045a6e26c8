"""The answers in what chat templates make of conversations: exactly they and their ends, or the row is refused."""

import re

import pytest
from chat_tokenizers import ENDS, SPECIALS, TEMPLATES, chat_tokenizer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from thorough import later

from rankexp.data.table import TaskError
from rankexp.tasks.sft.encode import Encoder
from rankexp.tasks.sft.messages import messages_of
from rankexp.tasks.sft.rows import Conversation
from rankexp.tasks.sft.rules import RULES, RowError
from rankexp.tasks.sft.templates import BUILT_IN, find_chat

CALL = {"function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "d", "parameters": {}}}]


def user(text):
    return {"role": "user", "content": text}


def bot(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def tool(text):
    return {"role": "tool", "content": text}


def conversation(*messages, tools=None):
    found = messages_of(list(messages), {})
    return Conversation(found, [i for i, message in enumerate(found) if message["role"] == "assistant"], tools)


def encoder(template, kind="byte_level", loss="answers", variables=None, named=None, **options):
    tokenizer = chat_tokenizer(template, kind, **options)
    return Encoder(tokenizer, find_chat(tokenizer, named, variables or {}), loss)


def learned(encode, *messages, tools=None):
    """Return the text of each run of learned tokens."""
    encoded = encode.encode(conversation(*messages, tools=tools))
    runs, before = [], False
    for token, target in zip(encoded.tokens.tolist(), encoded.targets.tolist(), strict=True):
        if target:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = target
    assert not encoded.targets[0]
    return [encode.tokenizer.decode(run) for run in runs]


def refused(encode, *messages, tools=None):
    with pytest.raises(RowError) as error:
        encode.encode(conversation(*messages, tools=tools))
    assert error.value.rule in RULES
    return error.value.rule


def end(template, *, last=True):
    """What a template ends an answer with."""
    if template == "harmony" and not last:
        return "<|end|>"
    return "" if template == "without_end" and not last else ENDS[template]


def expected(template, answers):
    """What is learned of answers without white space at their edges, as a model would say them."""
    texts = []
    for number, answer in enumerate(answers, 1):
        last = number == len(answers)
        text = {
            "qwen3": f"<think>\n\n</think>\n\n{answer}" if last else answer,
            "harmony": f"<|channel|>final<|message|>{answer}",
            "mistral": f" {answer}", "mistral_system_first": f" {answer}", "llama2": f" {answer} ",
        }.get(template, answer)  # fmt: skip
        texts.append(text + end(template, last=last))
    return texts


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("answers", [["Paris."], ["b", "assistant"], ["1\n2\n\n3", "日本語 🙂 Ü", "x" * 50]])
def test_answers_and_their_ends_are_learned(template, kind, answers):
    turns = [turn for answer in answers for turn in (user("What is the capital?"), bot(answer))]
    got = learned(encoder(template, kind), *turns)
    want = expected(template, answers)
    assert [text.strip(" ") for text in got] == [text.strip(" ") for text in want]
    if kind == "byte_level":
        assert got == want


@pytest.mark.parametrize("template", ["llama3", "qwen3", "smollm2", "harmony", "mistral_system_first", "no_beginning"])
def test_system_prompts_are_not_learned(template):
    got = learned(encoder(template), system("Be brief."), user("a"), bot("b"), user("c"), bot("d"))
    assert got == expected(template, ["b", "d"])


def test_white_space_at_the_edges_of_an_answer_is_learned_where_the_template_keeps_it():
    assert learned(encoder("smollm2"), user("a"), bot("\n\nhello \n")) == ["\n\nhello \n<|im_end|>"]
    assert learned(encoder("llama3"), user("a"), bot("\n\nhello \n")) == ["hello<|eot_id|>"]


@pytest.mark.parametrize(("template", "call"), [
    ("llama3", '{"name": "get_weather", "parameters": {"city": "Paris", "days": 3}}<|eot_id|>'),
    ("qwen3", '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call><|im_end|>'),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}, "id": "call00000"}]</s>'),
])  # fmt: skip
def test_calls_of_tools_are_learned_and_their_results_are_not(template, call):
    turns = [
        user("w?"),
        bot(None, tool_calls=[CALL]),
        tool('{"t": "20°"}'),
        bot("It is 20."),
        user("thanks"),
        bot("np"),
    ]
    got = learned(encoder(template), *turns, tools=TOOLS)
    answers = expected(template, ["x", "It is 20.", "np"])[1:]
    assert got == [call, *answers]


def test_two_calls_and_two_results():
    turns = [user("w?"), bot("Let me see.", tool_calls=[CALL, CALL]), tool("r1"), tool("r2"), bot("Both.")]
    first, second = learned(encoder("qwen3"), *turns, tools=TOOLS)
    assert first.startswith("Let me see.\n<tool_call>")
    assert first.count("<tool_call>") == 2
    assert second == "<think>\n\n</think>\n\nBoth.<|im_end|>"
    assert refused(encoder("llama3"), *turns) == "template_refuses"
    assert refused(encoder("mistral"), *turns) == "answer_changed"  # it drops the text beside calls


@pytest.mark.parametrize("template", ["smollm2", "marked", "without_end"])
def test_templates_that_show_no_calls_or_tools_are_not_silent(template):
    assert refused(encoder(template), user("w?"), bot(None, tool_calls=[CALL]), tool("r"), bot("a")) == "not_shown"
    assert refused(encoder(template), user("w?"), bot("a"), tools=TOOLS) == "not_shown"


def test_the_template_chatml_shows_them():
    encode = encoder("smollm2", named="chatml")
    turns = [system("s"), user("w?"), bot(None, tool_calls=[CALL]), tool("r"), bot("a")]
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "days": 3}}\n</tool_call><|im_end|>'
    assert learned(encode, *turns, tools=TOOLS) == [call, "a<|im_end|>"]
    whole = encode.tokenizer.decode(encode.encode(conversation(*turns, tools=TOOLS)).tokens)
    assert whole.startswith("<|im_start|>system\ns\n\n# Tools")
    plain = encode.tokenizer.decode(encode.encode(conversation(user("a"), bot("b"))).tokens)
    assert plain == "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"


def test_a_system_prompt_that_the_template_leaves_out_is_not_silent():
    assert refused(encoder("mistral"), system("s"), user("a"), bot("b")) == "not_shown"
    assert refused(encoder("gemma"), system("s"), user("a"), bot("b")) == "template_refuses"


class TestThinking:
    TURNS = (user("a"), bot("<think>\nhm\n</think>\n\nOne."), user("b"), bot("<think>\nok\n</think>\n\nTwo."))

    def test_thoughts_of_earlier_turns_are_left_out_and_counted(self):
        encode = encoder("qwen3")
        assert learned(encode, *self.TURNS) == ["One.<|im_end|>", "<think>\nok\n</think>\n\nTwo.<|im_end|>"]
        assert encode.encode(conversation(*self.TURNS)).thoughts_lost
        assert not encode.encode(conversation(*self.TURNS[2:])).thoughts_lost

    def test_a_field_of_thoughts_is_learned(self):
        got = learned(encoder("qwen3"), user("a"), bot("One.", reasoning_content="hm"))
        assert got == ["<think>\nhm\n</think>\n\nOne.<|im_end|>"]

    def test_an_empty_block_that_is_given_is_not_learned(self):
        encode = encoder("qwen3", variables={"enable_thinking": False})
        assert learned(encode, user("a"), bot("b"), user("c"), bot("d")) == ["b<|im_end|>", "d<|im_end|>"]

    def test_other_templates_keep_them(self):
        assert learned(encoder("llama3"), *self.TURNS)[0] == "<think>\nhm\n</think>\n\nOne.<|eot_id|>"
        assert not encoder("llama3").encode(conversation(*self.TURNS)).thoughts_lost


def test_the_last_answer_or_everything():
    turns = [user("a"), bot("b"), user("c"), bot("d")]
    assert learned(encoder("smollm2", loss="last_answer"), *turns) == ["d<|im_end|>"]
    encode = encoder("smollm2", loss="everything")
    encoded = encode.encode(conversation(*turns))
    assert encoded.targets.tolist() == [False] + [True] * (len(encoded.tokens) - 1)


def test_the_end_is_learned_though_it_is_the_padding_token():
    encode = encoder("smollm2")
    assert encode.tokenizer.pad_token == "<|im_end|>"
    encoded = encode.encode(conversation(user("a"), bot("b")))
    ends = encoded.tokens == encode.tokenizer.pad_token_id
    assert encoded.targets[ends].tolist() == [False, False, True]
    assert encode.tokenizer.decode(encoded.tokens[~encoded.targets][-1:]) == "\n"  # what follows the end is not learned


@pytest.mark.parametrize("template", ["llama3", "gemma", "mistral", "llama2"])
def test_there_is_one_begin_token(template):
    encode = encoder(template, begins=True)
    assert encode.tokenizer("a")["input_ids"][0] == encode.tokenizer.bos_token_id
    encoded = encode.encode(conversation(user("a"), bot("b")))
    assert (encoded.tokens == encode.tokenizer.bos_token_id).tolist() == [True] + [False] * (len(encoded.tokens) - 1)


def test_an_answer_without_an_end_gets_the_end_token_once():
    encode = encoder("without_end")
    encoded = encode.encode(conversation(user("a"), bot("b"), user("c"), bot("d")))
    assert encoded.ended
    assert (encoded.tokens == encode.tokenizer.eos_token_id).sum() == 1
    assert encode.tokenizer.decode(encoded.tokens).endswith("d<|endoftext|>")
    assert not encoder("smollm2").encode(conversation(user("a"), bot("b"))).ended


def test_a_conversation_may_end_or_begin_with_whoever_the_template_lets():
    assert learned(encoder("smollm2"), user("a"), bot("b"), user("c")) == ["b<|im_end|>"]
    assert learned(encoder("smollm2"), bot("Hi"), user("a"), bot("b")) == ["Hi<|im_end|>", "b<|im_end|>"]
    assert learned(encoder("smollm2"), user("a"), user("b"), bot("c"), bot("d")) == ["c<|im_end|>", "d<|im_end|>"]
    assert refused(encoder("gemma"), user("a"), user("b"), bot("c")) == "template_refuses"


FOOLING = [
    "<|im_start|>assistant\n", "<|im_end|>", "x<|im_end|>\n<|im_start|>user\ny", "[/INST] x", "</s>", "<|eot_id|>",
    "<end_of_turn>\n<start_of_turn>model\n", "<|start|>assistant<|channel|>final<|message|>x<|return|>",
]  # fmt: skip


@pytest.mark.parametrize("text", FOOLING)
@pytest.mark.parametrize("template", TEMPLATES)
def test_markers_in_a_text_are_refused_by_name(template, text):
    assert refused(encoder(template), user("a"), bot(text)) == "special_tokens"
    assert refused(encoder(template), user(text), bot("b")) == "special_tokens"


@pytest.mark.parametrize("text", [
    "user\nassistant\n", "### Response:\n", "assistant", "<|assistant|>\nx\n<|user|>\ny", "qzAnswer0zq", "model\n",
    "{{ bos_token }}{% raw %}", "</think>", "<think>\nhm\n</think>", "<tool_call>\n", '{"name": "x"}',
    "Use `</think>` to close the block.", "Say <think>x</think> now.", "<think>\nhm\n</think>\n\nUse `</think>`.",
    "<think>\nhm\n</think>\n\nyes",
])  # fmt: skip
@pytest.mark.parametrize("template", TEMPLATES)
def test_markers_that_are_plain_text_fool_nobody(template, text):
    """The whole answer is learned, or the row is refused; never less, and never what is not the answer's."""
    turns = [user("a"), bot(text), user(text), bot("c")]
    try:
        got = learned(encoder(template), *turns)
    except RowError as error:
        assert error.rule in {"answer_changed", "answer_not_found", "not_shown"}
        assert "think" in text, error.rule
        return
    assert len(got) == 2
    content = "yes" if template == "qwen3" and text.endswith("\n\nyes") else text.strip()
    assert content in got[0]
    assert (
        got[0]
        .strip()
        .removesuffix(end(template, last=False))
        .strip()
        .removeprefix("<|channel|>final<|message|>")
        .strip()
        == content
    )
    assert got[1] == expected(template, ["x", "c"])[1]


def test_a_template_that_changes_answers_is_refused():
    from chat_tokenizers import ONE_LINE, SHOUTING

    shouting, one_line = encoder("smollm2"), encoder("smollm2")
    shouting.tokenizer.chat_template, one_line.tokenizer.chat_template = SHOUTING, ONE_LINE
    assert refused(shouting, user("A"), bot("b")) == "answer_not_found"
    assert refused(one_line, user("a"), bot("b\nc")) == "answer_changed"
    assert learned(one_line, user("a"), bot("b")) == ["b<|im_end|>"]


def test_a_template_that_repeats_or_drops_answers_is_refused():
    for template in (
        "{% for m in messages %}{{ m.content + m.content + eos_token }}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content + eos_token }}{% endif %}{% endfor %}",
        "{% for m in messages | reverse %}{{ m.content + eos_token }}{% endfor %}",
        "nothing",
    ):
        encode = encoder("smollm2")
        encode.tokenizer.chat_template = template
        assert refused(encode, user("What?"), bot("Paris."), user("x"), bot("y")) in {
            "answer_not_found",
            "answer_changed",
            "not_shown",
        }


def test_a_template_in_which_each_word_depends_on_the_others_is_refused():
    encode = encoder("smollm2")
    encode.tokenizer.chat_template = (
        "{{ messages | map(attribute='content') | join(',') | length }}" + TEMPLATES["smollm2"]
    )
    assert refused(encode, user("a"), bot("b" * 20), user("c"), bot("d")) == "answer_changed"


def test_the_day_of_a_template_is_always_the_same():
    encode = encoder("llama3")
    assert encode.chat.has_clock
    text = encode.tokenizer.decode(encode.encode(conversation(user("a"), bot("b"))).tokens)
    assert "Today Date: 26 Jul 2024\n\n" in text
    other = encoder("llama3", variables={"date_string": "1 May 2025"})
    assert "Today Date: 1 May 2025" in other.tokenizer.decode(other.encode(conversation(user("a"), bot("b"))).tokens)


class TestFindingATemplate:
    def test_a_file(self, tmp_path):
        (tmp_path / "t.jinja").write_text(TEMPLATES["smollm2"])
        assert learned(encoder(None, named=str(tmp_path / "t.jinja")), user("a"), bot("b")) == ["b<|im_end|>"]

    def test_none(self, one_sentence):
        with pytest.raises(TaskError) as error:
            encoder(None).encode(conversation(user("a"), bot("b")))
        assert "the tokenizer has no chat template" in one_sentence(error.value)

    def test_one_of_several(self, one_sentence):
        tokenizer = chat_tokenizer(None)
        tokenizer.chat_template = {"default": TEMPLATES["smollm2"], "tool_use": BUILT_IN["chatml"], "rag": "x"}
        encode = Encoder(tokenizer, find_chat(tokenizer, None, {}))
        assert "SmolLM" in tokenizer.decode(encode.encode(conversation(user("a"), bot("b"))).tokens)
        assert "# Tools" in tokenizer.decode(encode.encode(conversation(user("a"), bot("b"), tools=TOOLS)).tokens)
        assert find_chat(tokenizer, "rag", {}).template == "x"
        tokenizer.chat_template = {"rag": "x"}
        with pytest.raises(TaskError) as error:
            Encoder(tokenizer, find_chat(tokenizer, None, {})).encode(conversation(user("a"), bot("b")))
        assert "the tokenizer has the templates 'rag'" in one_sentence(error.value)

    @pytest.mark.parametrize(("content", "said"), [
        (b"\xff\xfe", "holds no template"),
        (b"  ", "holds no template"),
        (b"x" * (2 << 20), "holds no template"),
        (b"{% for %}", "the chat template cannot be read"),
        (None, "which is no file and none of 'chatml', 'alpaca'"),
    ])  # fmt: skip
    def test_bad_files(self, tmp_path, content, said, one_sentence):
        path = tmp_path / "t.jinja"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(TaskError) as error:
            encoder("smollm2", named=str(path)).encode(conversation(user("a"), bot("b")))
        assert said in one_sentence(error.value)

    def test_tokens_that_are_not_there(self, one_sentence):
        from tokenizers import Tokenizer, models
        from transformers import PreTrainedTokenizerFast

        bare = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, "a")), eos_token="</s>"
        )
        with pytest.raises(TaskError) as error:
            find_chat(bare, "chatml", {})
        assert "needs the token '<|im_start|>'" in one_sentence(error.value)
        assert find_chat(bare, "alpaca", {}) is not None

    def test_variables_that_rankexp_sets(self, one_sentence):
        with pytest.raises(TaskError) as error:
            find_chat(chat_tokenizer(), None, {"tools": []})
        assert "option 'task.chat_template_kwargs' has 'tools'" in one_sentence(error.value)

    def test_alpaca_by_turns(self):
        got = learned(encoder(None, named="alpaca"), user("a"), bot("b"), user("c"), bot("d"))
        assert got == ["b<|endoftext|>", "d<|endoftext|>"]
        assert refused(encoder(None, named="alpaca"), user("a"), bot(None, tool_calls=[CALL])) == "template_refuses"


@pytest.mark.parametrize("template", [
    "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}", "{{ 1 / 0 }}",
    "{{ messages[9].content }}", "{% for i in range(999999999) %}{% endfor %}", "{{ raise_exception('a.\\nB. C!') }}",
])  # fmt: skip
def test_what_a_template_must_not_do_refuses_the_row(template):
    encode = encoder("smollm2")
    encode.tokenizer.chat_template = template
    assert refused(encode, user("a"), bot("b")) in {"template_refuses", "not_shown"}


WORDS = st.text(st.sampled_from("ab \n\t.:|<>[]/INSTé日🙂{}%'\"#"), min_size=1, max_size=12)
TEXTS = WORDS | st.sampled_from(
    ["assistant\n", "user", "<|im_", "im_end|>", "</s", "###", "\n\n", " ", "[INST", "model\n"]
)


@st.composite
def conversations(draw):
    turns = [system(draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [user(draw(TEXTS)), bot(draw(TEXTS))]
    return turns


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte_level", later("metaspace")])
@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(turns=conversations())
def test_random_conversations_are_exact_or_refused_by_name(template, kind, turns):
    assume(all(turn["content"].strip() for turn in turns))
    assume(not any(token in turn["content"] for turn in turns for token in SPECIALS))
    encode = encoder(template, kind)
    answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
    try:
        got = learned(encode, *turns)
    except RowError as error:
        assert error.rule in RULES
        allowed = {"gemma", "llama2", "mistral"} if turns[0]["role"] == "system" else set()
        assert template in allowed or error.rule == "inexact_tokens", (error.rule, error.detail)
        assert error.rule != "inexact_tokens" or kind == "metaspace"
        return
    assert len(got) == len(answers)
    for text, answer, want in zip(
        got, answers, expected(template, [answer.strip() for answer in answers]), strict=True
    ):
        assert re.sub(r"\s", "", text) == re.sub(r"\s", "", want), answer
        if kind == "byte_level" and template in ("smollm2", "no_beginning", "marked"):
            assert text == answer + "<|im_end|>"


@st.composite
def with_tools(draw):
    """Conversations whose answers may take several calls, as templates with tools let them."""
    turns = [system(draw(TEXTS))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns.append(user(draw(TEXTS)))
        for _ in range(draw(st.integers(0, 2))):
            call = {"function": {"name": draw(st.sampled_from(["f", "get_weather"])), "arguments": {"x": draw(WORDS)}}}
            turns += [bot("", tool_calls=[call]), tool(draw(TEXTS))]
        turns.append(bot(draw(TEXTS)))
    return turns


@pytest.mark.slow
@pytest.mark.parametrize(("template", "named"), [
    later("llama3", None), ("qwen3", None), ("mistral_system_first", None), later("smollm2", "chatml"),
])  # fmt: skip
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(turns=with_tools(), tools=st.sampled_from([None, TOOLS]))
def test_random_conversations_with_tools(template, named, turns, tools):
    assume(all(turn["content"].strip() or turn.get("tool_calls") for turn in turns))
    assume(not any(token in str(turn) for turn in turns for token in SPECIALS))
    encode = encoder(template, named=named)
    got = learned(encode, *turns, tools=tools)
    said = [turn for turn in turns if turn["role"] == "assistant"]
    assert len(got) == len(said)
    for text, turn in zip(got, said, strict=True):
        assert text.endswith(ENDS[template])
        assert text.count(ENDS[template]) == 1
        inner = re.sub(r"\s", "", text.removesuffix(ENDS[template]).removeprefix("<think>\n\n</think>"))
        if turn.get("tool_calls"):
            assert inner.startswith(("{", "<tool_call>{", "[TOOL_CALLS][{"))
            assert f'"name":"{turn["tool_calls"][0]["function"]["name"]}"' in inner
        else:
            assert inner == re.sub(r"\s", "", turn["content"])


AS_TEXT = """\
{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content }}
{%- for call in message.tool_calls or [] %}{{- call.function.name + ' ' + ARGUMENTS }}{% endfor %}
{{- '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


@pytest.mark.parametrize("written", ["call.function.arguments", "(call.function.arguments | string)"])
def test_arguments_are_json_also_for_a_template_that_wants_them_as_text(written):
    encode = encoder(AS_TEXT.replace("ARGUMENTS", written))
    answer = bot("", tool_calls=[CALL])
    assert learned(encode, user("a"), answer, tool("r"), bot("d")) == [
        'get_weather {"city": "Paris", "days": 3}<|im_end|>', "d<|im_end|>"
    ]  # fmt: skip
    quoted = user(f"Why {CALL['function']['arguments']}?")
    as_json = encoder(AS_TEXT.replace("ARGUMENTS", "(call.function.arguments | tojson)"))
    assert learned(as_json, quoted, answer)[0] == 'get_weather {"city": "Paris", "days": 3}<|im_end|>'


def test_a_tool_that_quotes_the_arguments_of_a_call_changes_no_call():
    described = {"name": "get_weather", "description": f"such as {CALL['function']['arguments']}", "parameters": {}}
    tools = [{"type": "function", "function": described}]
    got = learned(encoder("smollm2", named="chatml"), user("a"), bot("", tool_calls=[CALL]), tools=tools)
    assert '"arguments": {"city": "Paris", "days": 3}' in got[0]


def test_answers_whose_end_nothing_marks_are_counted():
    turns = user("a"), bot("b"), user("c"), bot("d")
    assert encoder("without_end").encode(conversation(*turns)).unended
    assert not encoder("without_end").encode(conversation(*turns[:2])).unended  # it gets the end token
    assert encoder("without_end").encode(conversation(*turns[:3])).unended
    assert not encoder("without_end", loss="last_answer").encode(conversation(*turns)).unended
    assert not encoder("smollm2").encode(conversation(*turns)).unended


@pytest.mark.parametrize("named", sorted(BUILT_IN))
def test_a_template_of_rankexp_begins_as_the_tokenizer_does(named):
    for begins in (True, False):
        encode = encoder("llama2", named=named, begins=begins)
        first = encode.tokenizer("a")["input_ids"][0]
        encoded = encode.encode(conversation(user("a"), bot("b")))
        assert (encoded.tokens == encode.tokenizer.bos_token_id).sum() == begins
        assert (encoded.tokens[0] == first) == begins
