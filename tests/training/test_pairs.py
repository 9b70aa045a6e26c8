"""Models with an encoder and a decoder under the laws of every task."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from adapter_laws import check_packed, check_resumed
from thorough import later, later_but
from tiny_bench import digests
from tiny_pairs import MODELS, make_base, make_bench, make_spec

from rankexp.lora.inject import new_layers
from rankexp.lora.pack import Adapter, Pack
from rankexp.ranks import RankMap
from rankexp.record.trials import TrialStore
from rankexp.training.bench import prepare
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SOME = ["t5", "bart"]
EVERY = later_but(SOME, MODELS)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp("bench"), name))


def in_float64(bench):
    return replace(bench, pack=Pack(copy.deepcopy(bench.model).double()))


def in_peft(bench, trial):
    from peft import PeftModel

    bare = make_base(bench.base.name).build(bench.data.objective.kind)
    prepare(bare, bench.device)
    return PeftModel.from_pretrained(bare, trial.adapter).eval()


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PEFT, about tied weights
@pytest.mark.parametrize("name", EVERY)
def test_the_adapter_in_peft_gives_the_recorded_loss_of_every_example(benches, tmp_path, name):
    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0), TrialStore(tmp_path))
    recorded = trial.scores("decide")
    again = score(in_peft(bench, trial), bench.collator(bench.data.splits["decide"]), precision="float32")
    np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=1e-4, atol=1e-5)
    assert read_back(bench.base, bench.data, trial, bench.device).passed
    losses = [row["loss"] for row in trial.result.history]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", EVERY)
def test_a_pack_is_each_of_it_alone(benches, tmp_path, name):
    bench = in_float64(benches(name))
    assert bench.packs
    changes = [{"rank": 1, "seed": 0}, {"rank": 4, "seed": 1, "dropout": 0.3}, {"rank": 3, "seed": 2, "dropout": 0.1}]
    check_packed(bench, tmp_path, *[make_spec(bench, steps=6, alpha=8.0, **change) for change in changes], rtol=1e-9)


@pytest.mark.parametrize("name", SOME)
def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path, name):
    check_resumed(benches(name), tmp_path, make_spec(benches(name), dropout=0.2))


@pytest.mark.parametrize(
    "method", later_but({"adalora", "full"}, ["lora", "dora", "adalora", "nested", "full", "subspace"])
)
def test_every_method_trains(benches, tmp_path, method):
    bench = benches("t5")
    options = {"nested_ranks": (1, 2)} if method == "nested" else {"dimension": 200} if method == "subspace" else {}
    spec = make_spec(bench, method=method, steps=30, **options)
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    if method != "subspace":
        again = bench.score_trial(trial, Scoring("decide"))
        np.testing.assert_array_equal(again.values["loss"], trial.scores("decide").values["loss"])


@pytest.mark.parametrize("initialisation", ["pissa", "eva"])
def test_every_start_trains_and_is_deterministic(benches, tmp_path, initialisation):
    bench = benches("t5")
    spec = make_spec(bench, initialisation=initialisation, learning_rate=3e-3)
    trials = [train_trial(bench, spec, TrialStore(tmp_path / str(i))) for i in range(2)]
    assert digests(trials[0]) == digests(trials[1])
    assert read_back(bench.base, bench.data, trials[0], bench.device).passed


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_and_its_gradients_are_those_of_transformers(benches, name):
    bench = benches(name)
    model = copy.deepcopy(bench.model).requires_grad_(True)
    batch = bench.collator(bench.data.splits["train"])(np.arange(8))
    rows = bench.data.objective.losses(model, batch)
    ours = (rows * batch.weights).sum() / batch.weights.sum()
    ours.backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    theirs = model(**batch.inputs, labels=batch.labels, use_cache=False).loss
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    for n, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(found[n], p.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_padding_of_either_side_changes_no_score(benches, name):
    bench = benches(name)
    examples, objective = bench.data.splits["decide"], bench.data.objective
    collator = bench.collator(examples)
    with torch.no_grad():
        together = objective.losses(bench.model, collator(np.arange(len(examples))))
        alone = torch.cat([objective.losses(bench.model, collator(np.array([i]))) for i in range(len(examples))])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)


def test_the_two_sides_of_a_batch_never_have_one_length(benches):
    bench = benches("t5")
    examples = bench.data.splits["train"]
    read = np.array([len(ids) for ids in examples.tokens])
    counts = examples.counts.astype(int)
    same = np.flatnonzero(read == counts)
    assert len(same) > 3  # or it says nothing
    for slots in ([same[:1]], [same[:1], same[1:2]], [np.arange(3), np.arange(3, 6)], [same[:2], np.arange(2)]):
        batch = bench.collator(examples)(*slots)
        width, longest = batch.inputs["input_ids"].shape[1], batch.labels.shape[1]
        assert width != longest
        assert set(batch.lengths) == {width, longest}
        for k, slot in enumerate(slots):
            alone = bench.collator(examples)(slot)
            own = alone.inputs["input_ids"].shape[1], alone.labels.shape[1]
            assert (batch.lengths[width][k], batch.lengths[longest][k]) == own
        assert [mask.shape[1] for mask in batch.masks] == [width, longest]


@pytest.mark.parametrize(
    "target", ["decoder.block.1.layer.0.SelfAttention.q", "encoder.block.1.layer.0.SelfAttention.q"]
)
def test_adapters_of_one_stack_alone_train_for_several_epochs(benches, tmp_path, target):
    bench = benches("t5")
    spec = replace(make_spec(bench, steps=16), rank_map=RankMap({target: 2}))
    assert spec.steps * spec.batch_size > len(bench.data.splits["train"])
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    assert trial.result.status == "completed"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("beams", [None, later(1), 3])
def test_what_is_written_is_what_the_model_itself_writes_and_peft_too(tmp_path, beams):
    bench = make_bench(
        tmp_path, "bart", generate=["chrf", "bleu", "corpus_chrf", "exact_match"], max_new_tokens=12, num_beams=beams
    )
    trial = train_trial(bench, make_spec(bench, steps=20, learning_rate=3e-2), TrialStore(tmp_path))
    scores = trial.scores("decide")
    assert {"chrf", "exact_match", "bleu_length", "chrf_matches_6"} <= scores.values.keys()
    examples = bench.data.splits["decide"]
    model = in_peft(bench, trial)
    texts = bench.data.objective.writing.complete(model, examples, np.arange(5), bench.padding, bench.device)
    with torch.no_grad():
        theirs = [
            model.generate(
                input_ids=torch.tensor([examples.tokens[i].tolist()]), max_new_tokens=12, do_sample=False,
                **({} if beams is None else {"num_beams": beams}),
            )
            for i in range(5)
        ]  # fmt: skip
    tokenizer = bench.base.processor.tokenizer
    assert texts == [tokenizer.decode(ids[0], skip_special_tokens=True).strip() for ids in theirs]
    assert [one.completion for one in trial.generations("decide")[:5]] == texts


def test_a_text_may_be_made_to_begin_with_a_language(benches):
    from rankexp.objectives.writing import Writing

    bench = benches("mbart")
    writer = Writing((), None, 6, (), bench.base.processor.tokenizer, 1, forced=65)
    examples = replace_prompted(bench)
    found = writer._run(bench.model, examples, np.arange(4), bench.padding, bench.device, 6).sequences
    assert (found[:, 1] == 65).all()


def replace_prompted(bench):
    from rankexp.tasks.examples import PromptedPairs

    train = bench.data.splits["train"]
    nothing = ("",) * len(train)
    return PromptedPairs(
        train.example_ids, train.group_ids, train.tokens, train.answers, prompt_texts=nothing, references=nothing,
        content_hashes=train.content_hashes,
    )  # fmt: skip


def test_layers_of_encoder_decoder_and_cross_attention_are_adapted_once_and_shared_tables_left_out(benches):
    bench = benches("t5")
    names = set(bench.shapes("all-linear"))
    assert {"encoder.block.0.layer.0.SelfAttention.q", "decoder.block.1.layer.1.EncDecAttention.v"} <= names
    assert not any("lm_head" in name or "shared" in name for name in names)
    layers = new_layers(bench.model, dict.fromkeys(names, 1), alpha=1.0, seed=0)
    with bench.pack.holding(Adapter(layers, {})) as model:
        assert sum(1 for _ in model.modules() if _ in set(layers.values())) == len(names)
