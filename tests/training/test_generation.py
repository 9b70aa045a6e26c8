"""What a model writes: greedily, the same alone and in a batch, judged by scorers, recorded, and again in PEFT."""

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from test_language import in_float64, make_spec
from thorough import later
from tiny_language import MODELS, make_base, write_rows

from rankexp.metrics import EXACT_MATCH, metrics_of
from rankexp.models.base import find_model
from rankexp.objectives.generation import Generation
from rankexp.option_errors import ConfigError
from rankexp.record.files import DamagedRecordError
from rankexp.record.trials import TrialStore
from rankexp.scorers.base import Scorer, find_scorers
from rankexp.tasks.base import TaskError, metrics_of_task
from rankexp.tasks.examples import Prompted
from rankexp.tasks.sft.task import SftTask
from rankexp.training.bench import Bench
from rankexp.training.recompute import recompute_blocks
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring

pytestmark = pytest.mark.slow

ASKED = {"generate": ["exact_match", "chrf"], "max_new_tokens": 12}


def make_bench(folder, name="llama", **options):
    base = make_base(name)
    folder.mkdir(exist_ok=True)
    task = SftTask(path=str(write_rows(folder / "rows.jsonl")), **{**ASKED, **options})
    return Bench.load(base, task.load(base.processor, lambda _: None), torch.device("cpu"))


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp(name), name))


def taken(bench, split="decide", size=9):
    return bench.collator(bench.data.splits[split].sample(size))


def by_hand(bench, prompt, most=12):
    """The likeliest token after all before it, without a cache and alone."""
    generation = bench.data.objective.writing
    ids = prompt.tolist()
    with torch.inference_mode():
        for _ in range(most):
            token = int(bench.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in generation.stops:
                break
            ids.append(token)
    return generation.tokenizer.decode(ids[len(prompt) :], clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_is_written_as_each_row_alone_without_a_cache(benches, name):
    bench = in_float64(benches(name))
    collator = taken(bench)
    assert len({len(ids) for ids in collator.examples.prompts}) > 1
    found = score(bench.model, collator, precision="float32")
    expected = [by_hand(bench, prompt) for prompt in collator.examples.prompts]
    assert [row.completion for row in found.written] == expected
    assert any(expected)


def test_a_model_that_minds_padding_is_given_rows_of_one_length(benches, monkeypatch):
    bench = in_float64(benches("llama"))
    collator, lengths, plain = taken(bench), [], Generation.complete

    def complete(self, model, examples, index, *rest):
        lengths.append({len(examples.prompts[i]) for i in index})
        return plain(self, model, examples, index, *rest)

    together = score(bench.model, collator, precision="float32")
    monkeypatch.setattr(Generation, "pads", lambda *_: False)
    monkeypatch.setattr(Generation, "complete", complete)
    apart = score(bench.model, collator, precision="float32")
    assert max(map(len, lengths)) == 1 < len(lengths)
    assert apart.written == together.written


def test_a_model_that_minds_padding_is_noticed(benches):
    bench = benches("llama")
    generation, split = bench.data.objective.writing, bench.data.splits["decide"]
    assert generation.pads(bench.model, split, bench.padding, bench.device)
    blind = bench.copy().model
    forward = blind.forward
    blind.forward = lambda *args, attention_mask=None, position_ids=None, **kwargs: forward(*args, **kwargs)
    assert not generation.pads(blind, split, bench.padding, bench.device)


def test_the_settings_of_the_model_for_writing_are_left_as_they_are_and_do_not_count(benches):
    bench = benches("llama").copy()
    plain = score(bench.model, taken(bench), precision="float32").written
    bench.model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=9.0, num_beams=3)
    before = bench.model.generation_config
    assert score(bench.model, taken(bench), precision="float32").written == plain
    assert bench.model.generation_config is before


def test_it_writes_the_same_where_blocks_are_computed_again(benches):
    bench = in_float64(benches("llama"))
    plain = score(bench.model, taken(bench), precision="float32").written
    recompute_blocks(bench.model)
    assert score(bench.model, taken(bench), precision="float32").written == plain


def test_a_base_in_bfloat16_writes_too_and_the_same_twice(tmp_path):
    base = find_model(name="m", source="config", path=None, architecture=MODELS["llama"], dtype="bfloat16")
    task = SftTask(path=str(write_rows(tmp_path / "rows.jsonl")), **ASKED)
    bench = Bench.load(base, task.load(base.processor, lambda _: None), torch.device("cpu"))
    trial = train_trial(bench, make_spec(bench, steps=20, precision="bfloat16"), TrialStore(tmp_path))
    again = bench.score_trial(trial, Scoring("decide"))
    assert again.written == trial.generations("decide")
    assert any(row.completion for row in again.written)


def test_halves_are_written_where_memory_does_not_suffice(benches, monkeypatch):
    bench = in_float64(benches("llama"))
    whole, plain, tried = score(bench.model, taken(bench), precision="float32"), Generation.complete, []

    def complete(self, model, examples, index, *rest):
        tried.append(len(index))
        if len(index) > 2:
            raise torch.OutOfMemoryError
        return plain(self, model, examples, index, *rest)

    monkeypatch.setattr(Generation, "complete", complete)
    again = score(bench.model, taken(bench), precision="float32")
    assert max(tried) > 2
    assert again.written == whole.written


def test_prompts_and_references_are_the_last_answers(benches):
    split = benches("llama").data.splits["decide"]
    assert isinstance(split, Prompted)
    for prompt, reference, ids in zip(split.prompt_texts, split.references, split.tokens, strict=True):
        assert prompt.endswith("<|im_start|>assistant\n")
        assert reference == "even" or reference.startswith("odd, x")
        assert len(prompt) + len(reference) <= 2 * len(ids) + 60
    assert not isinstance(benches("llama").data.splits["tune"], Prompted)


def test_of_a_cut_row_the_whole_answer_is_asked_for(tmp_path):
    long = make_bench(tmp_path / "long")
    short = make_bench(tmp_path / "short", max_length=40)
    one, other = long.data.splits["decide"], short.data.splits["decide"]
    known = dict(zip(one.example_ids.tolist(), zip(one.prompt_texts, one.references, strict=True), strict=True))
    assert min(one.sizes.max(), 41) > other.sizes.max() - 1
    for example, prompt, reference in zip(
        other.example_ids.tolist(), other.prompt_texts, other.references, strict=True
    ):
        assert known[example] == (prompt, reference)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("name", ["llama", later("gpt2"), later("gemma3")])
def test_the_adapter_in_peft_writes_what_was_recorded(benches, tmp_path, name):
    from peft import PeftModel

    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0, steps=60), TrialStore(tmp_path))
    recorded = trial.generations("decide")
    assert [row.example_id for row in recorded] == bench.data.splits["decide"].example_ids.tolist()
    assert trial.result.metrics.keys() == {"tune", "decide"}
    assert "exact_match" not in trial.result.metrics["tune"]
    assert trial.result.metrics["decide"]["exact_match"] == pytest.approx(
        np.mean([row.completion.strip() == row.reference.strip() for row in recorded])
    )
    model = PeftModel.from_pretrained(bench.base.build(bench.data.objective.kind), trial.adapter).eval()
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32")
    assert again.written == recorded
    np.testing.assert_array_equal(again.values["chrf"], trial.scores("decide").values["chrf"])
    base = score(bench.model, bench.collator(bench.data.splits["decide"]), precision="float32")
    assert base.written != recorded


def test_test_is_scored_by_what_is_written_too(benches, tmp_path):
    bench = benches("llama")
    trial = train_trial(bench, make_spec(bench, steps=3), TrialStore(tmp_path))
    assert {"loss", "exact_match", "chrf"} == bench.score_trial(trial, Scoring("test")).values.keys()


def test_a_file_of_completions_that_was_altered_is_damaged(benches, tmp_path):
    bench = benches("llama")
    store = TrialStore(tmp_path)
    trial = train_trial(bench, make_spec(bench, steps=3), store)
    file = trial.folder / "generations" / "decide.json"
    file.write_text(json.dumps({"schema": 1, "rows": []}))
    with pytest.raises(DamagedRecordError, match="decide.json"):
        store.verify(trial.key)
    with pytest.raises(DamagedRecordError, match="decide.json"):
        trial.generations("decide")
    assert trial.generations("tune") == ()


@pytest.mark.parametrize(
    ("answer", "text", "found"),
    [
        (None, " 7 ", " 7 "),
        ("#### (.+)", "so 3\n#### 1,000", "1,000"),
        ("#### (.+)", "#### 1 #### 2\n#### 3", "3"),
        ("[0-9]+", "3 and 4", "4"),
        ("#### (.+)", "no answer", None),
    ],
)
def test_what_is_compared_is_the_last_match(answer, text, found):
    assert Generation((), answer, 1, (), None).compared(text) == found


def test_a_completion_without_an_answer_is_wrong_and_not_an_error(benches):
    split = benches("llama").data.splits["decide"]
    generation = replace(benches("llama").data.objective.writing, answer="(even|odd)")
    found = generation.judge(split, ["even" if i else "none" for i in range(len(split))])
    assert found["exact_match"][0] == 0
    assert found["exact_match"].mean() == pytest.approx(
        np.mean([bool(i) and text.startswith("even") for i, text in enumerate(split.references)])
    )


@pytest.mark.parametrize("value", [float("nan"), "7", None, float("inf")])
def test_a_scorer_that_gives_no_number_is_named(benches, value):
    split = benches("llama").data.splits["decide"]
    scorer = Scorer(EXACT_MATCH, lambda *_: value)
    generation = replace(benches("llama").data.objective.writing, scorers=(scorer,))
    with pytest.raises(TaskError, match=r"scorer 'exact_match' gave .* for example .*, and a score is a number\."):
        generation.judge(split, split.references)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"generate": ["exact"]}, "the scorer 'exact', which is not there"),
        ({"generate": ["chrf", "chrf"]}, "the scorer 'chrf' twice"),
        ({"answer": "x"}, "name scorers with task.generate"),
        ({"generate": ["chrf"], "answer": "(x"}, "is no pattern"),
    ],
)
def test_wrong_options_are_told_before_anything_is_read(options, said):
    with pytest.raises((ConfigError, ValueError), match=said):
        SftTask(path="nowhere.jsonl", **options)


def test_references_without_an_answer_are_refused(tmp_path):
    with pytest.raises(TaskError, match=r"option 'task.answer' finds nothing in the answers of [0-9]+ rows"):
        make_bench(tmp_path / "rows", answer="#### (.+)")


def test_texts_without_prompts_are_refused(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"a text of number {i}"}) + "\n" for i in range(200)))
    with pytest.raises(TaskError, match="has nothing before its answer, so there is nothing to ask"):
        SftTask(path=str(path), **ASKED).load(make_base().processor, lambda _: None)


def test_prompts_that_leave_no_room_for_an_answer_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"takes [0-9]+ tokens with what may be written after it, and .* 256"):
        make_bench(tmp_path / "rows", max_new_tokens=250)


def test_metrics_follow_the_options_and_the_data_are_other_data(tmp_path):
    names = [metric.name for metric in metrics_of_task({"name": "sft", "path": "x", "generate": "chrf"})]
    assert names == ["loss", "chrf"]
    assert [m.name for m in metrics_of_task({"name": "sft", "generate": ["gone"]})] == ["loss", "gone"]
    asking, silent = make_bench(tmp_path / "a"), make_bench(tmp_path / "b", generate=None)
    assert asking.data.fingerprint != silent.data.fingerprint
    assert [metric.name for metric in metrics_of(asking.data.card())] == ["loss", "exact_match", "chrf"]
    assert [metric.generated for metric in metrics_of(asking.data.card())] == [False, True, True]
    assert [metric.name for metric in metrics_of(silent.data.card())] == ["loss"]


def test_chrf_is_that_of_sacrebleu():
    from sacrebleu import sentence_chrf

    (scorer,) = find_scorers(["chrf"])
    assert (
        scorer.score("", "le chat dort", "le chat noir dort")
        == sentence_chrf("le chat dort", ["le chat noir dort"]).score
    )
