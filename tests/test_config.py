"""The configuration: what is refused, and what makes another study."""

import copy
import json

import pytest

from rankexp.analysis.statistics import power
from rankexp.config import LEAST_SEEDS, StudyConfig
from rankexp.option_errors import ConfigError, option_names
from rankexp.options import parse

VALUES = {
    "study": "s",
    "model": {"name": "tiny", "source": "config", "architecture": {"model_type": "bert"}},
    "task": {"name": "csv", "path": "x.csv"},
}


def config(**changes):
    """Build a configuration; ``a__b=value`` sets option ``a.b``."""
    values = copy.deepcopy(VALUES)
    for name, value in changes.items():
        *groups, last = name.split("__")
        inner = values
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[last] = value
    return parse(StudyConfig, values)


def test_what_is_left_out_has_the_values_of_the_files_in_conf():
    assert config().search.ranks == [4, 8, 16, 32]
    assert config().decide.seeds == [0, 1, 2, 3, 4]
    assert json.loads(json.dumps(config().to_dict())) == config().to_dict()
    assert parse(StudyConfig, config().to_dict()) == config()


def test_values_are_brought_into_one_form():
    made = config(search__ranks=[16, 4, 8.0], search__learning_rates=[1, 1e-3], decide__seeds=3, lora__alpha=8)
    assert made.search.ranks == [4, 8, 16]
    assert made.search.learning_rates == [1e-3, 1.0]
    assert made.decide.seeds == [0, 1, 2]
    assert isinstance(made.lora.alpha, float)


INF, NAN = float("inf"), float("nan")
REFUSED = [
    *(("search__ranks", value, "search.ranks") for value in ([-4], [0], [3.5], [4, 4], ["a"], [True], 4, [INF])),
    ("search__ranks", [], "search': ranks"),
    *(("search__learning_rates", value, "search") for value in ([0], [-1e-3], [NAN], [INF], [1e-3, 1e-3], [], ["a"])),
    *(("search__alphas", value, "search.alphas") for value in ([0], [8, 8], ["x"], 8)),
    ("search__scalings", ["rs"], "search.scalings"),
    ("search__widen", -1, "search.widen"),
    ("search__strategy", 3, "search.strategy"),
    ("search__options", 3, "search.options"),
    *(("search", value, name) for value, name in (
        *(({"strategy": "pareto", "max_adapter_mib": value}, "search.max_adapter_mib") for value in (0, -1, NAN, "x")),
        ({"strategy": "pareto", "max_parameters": 0}, "search.max_parameters"),
        ({"strategy": "pareto", "sampler": "gp"}, "search.sampler"),
        ({"strategy": "tpe", "trials": 0}, "search.trials"),
        ({"strategy": "nested", "losses": "mean"}, "search.losses"),
        ({"strategy": "nested", "nested_losses": "mean"}, "search.losses"),
        ({"strategy": "squeeze", "shortlist": 1}, "search.shortlist"),
        ({"strategy": "halving", "reduction_factor": 1}, "search.reduction_factor"),
    )),
    *(("lora__alpha", value, "lora.alpha") for value in (0, -1, INF, NAN, "x", None)),
    *(("lora__dropout", value, "lora.dropout") for value in (-0.1, 1, NAN)),
    *(("lora__target_modules", value, "lora.target_modules") for value in (3, [3], "all")),
    *(("lora__modules_to_save", value, "lora.modules_to_save") for value in (3, [3], "all")),
    *(("lora__trainable_token_indices", value, "lora.trainable_token_indices") for value in (3, [-1], ["a"], [1.5])),
    ("lora__scaling", "rs", "lora.scaling"),
    *(("trial__learning_rate", value, "trial.learning_rate") for value in (0, -1, NAN)),
    *(("trial__rank", value, "trial.rank") for value in (-4, 3.5, "x")),
    *(("train__steps", value, "train.steps") for value in (0, -1, 2.5, INF, NAN, True, "60", None)),
    *(("train__weight_decay", value, "train.weight_decay") for value in (-1, NAN)),
    ("train__schedule", "linaer", "train.schedule"),
    ("train__precision", "float16", "train.precision"),
    *(("decide__seeds", value, "decide.seeds") for value in (0, -3, [], [1, 1], [-1], "3", [0.5], 2.5)),
    *(("decide__margin", value, "decide.margin") for value in (0, -0.01, NAN)),
    *(("decide__level", value, "decide.level") for value in (0, 0.5, 1)),
    *(("references__head", value, "references.head") for value in ([0], [-1], 3)),
    *(("study", value, "study") for value in (
        "../../x", "/abs", "a\nb", "x" * 600, "", ".", "..", ".hidden", "a..b", "a/b", "a\\b", "a\0", "-x", None, 3,
    )),
    *(("device", value, "device") for value in ("gpu", "cuda:", "cuda:-1", "cpu\n", "CPU", 0)),
    ("model__source", "hub", "model.source"),
    *(("task", value, "task") for value in ({}, {"name": 3}, "csv")),
    ("tracking__name", "wandb", "tracking.name"),
    ("jobs", 0, "jobs"),
    ("pack", 0, "pack"),
    ("model___target_", "os.system", "model._target_"),
    ("_target_", "os.system", "_target_"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "named"), REFUSED, ids=lambda value: repr(value)[:25])
def test_bad_input_is_refused_in_one_sentence_that_names_the_option(name, value, named, one_sentence):
    with pytest.raises(ConfigError) as refused:
        config(**{name: value})
    assert f"option '{named}" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("train__stps", "train.steps"), ("lora__aplha", "lora.alpha"), ("studdy", "study"), ("rank", "trial.rank"),
     ("search__rank", "search.ranks"), ("search__alpha", "search.alphas"), ("lora__margin", "decide.margin"), ("trainer__steps", "train")],
)  # fmt: skip
def test_an_unknown_option_gets_its_near_miss(name, nearest, one_sentence):
    with pytest.raises(ConfigError) as refused:
        config(**{name: 1})
    message = one_sentence(refused.value)
    assert message.startswith(f"unknown option '{name.split('__')[0]}")
    assert f"did you mean '{nearest}" in message


@pytest.mark.parametrize("missing", ["study", "model", "task"])
def test_what_has_no_default_is_asked_for(missing):
    with pytest.raises(ConfigError, match=f"^option '{missing}' is missing\\.$"):
        parse(StudyConfig, {key: value for key, value in VALUES.items() if key != missing})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search__seed": 2}, "search.seed 2 is one of decide.seeds"),
        ({"search__max_parameters": 9}, "option 'search.max_parameters' is for strategy pareto."),
        ({"search__max_adapter_mib": 9}, "option 'search.max_adapter_mib' is for strategy pareto."),
        ({"search__losses": "summed"}, "option 'search.losses' is for strategy nested."),
        ({"search__nested_losses": "summed"}, "option 'search.nested_losses' is called 'search.losses' now."),
        ({"search__shortlist": 3}, "option 'search.shortlist' is for strategy nested or squeeze."),
        (
            {"search__strategy": "halving", "search__first_rung": 60},
            "search.first_rung 60 must come before the last step of a screening run",
        ),
        ({"search__strategy": "adalora"}, "search.strategy adalora finds no single rank for all layers"),
        ({"train__patience": 2}, "eval_every must be above 0"),
        ({"decide__looks": [2]}, "looks must increase and end with all 5 seeds"),
        ({"decide__looks": [3, 3]}, "looks must increase and end with all 5 seeds"),
        ({"decide__looks": [2, 5]}, "looks begins with 2 seeds, and no verdict takes fewer than 3"),
        ({"references__dimensions": [10]}, "subspace and dimensions go together"),
        ({"references__subspace": [1e-2], "references__dimensions": [10, 10]}, "dimensions lists 10 twice"),
        (
            {"references__subspace": [1e-2], "references__dimensions": [10], "lora__trainable_token_indices": [3]},
            "references.dimensions counts the numbers that move linear layers",
        ),
        (
            {"references__subspace": [1e-2], "references__dimensions": [10], "lora__modules_to_save": ["lm_head"]},
            "references.dimensions counts the numbers that move linear layers",
        ),
        (
            {"search__strategy": "squeeze", "contest__rank": 8},
            "contest.rank 8 may be left out where search.strategy is squeeze; auto takes the rank that was decided on",
        ),
        (
            {"search__first_rung": 5, "search__strategy": "tpe"},
            "option 'search.first_rung' is for strategy halving.",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(changes, message, one_sentence):
    with pytest.raises(ConfigError) as refused:
        config(**changes)
    assert message in str(refused.value)


SAME_STUDY = {
    "workspace": "elsewhere", "tracking.name": "none", "tracking.uri": "http://x", "jobs": 2, "pack": 2, "checkpoint_every": 7, "lease_seconds": 9,
    "threads": 3, "storage": "sqlite:///x.db", "launcher.name": "local", "launcher.dry_run": True, "launcher.worker": 1, "workers": 2,
    "trial.rank": 4, "trial.learning_rate": 1e-4, "trial.seed": 7, "gradient_checkpointing": True, "attention": "sdpa",
}  # fmt: skip
OTHER_STUDY = {
    "device": "cpu", "model.name": "m", "model.source": "path", "model.path": "p", "model.revision": "r",
    "model.architecture": {"model_type": "gpt2"}, "model.tokenizer": "t", "model.seed": 1, "model.dtype": "bfloat16", "model.quantise": "nf4",
    "task": {"name": "csv", "path": "y.csv"}, "lora.alpha": 8, "lora.scaling": "rslora", "lora.dropout": 0.1,
    "lora.target_modules": ["query"], "lora.modules_to_save": ["embed_tokens"], "lora.trainable_token_indices": [7], "train.steps": 61, "train.batch_size": 16, "train.accumulation": 2,
    "train.schedule": "cosine", "train.warmup_steps": 0, "train.weight_decay": 0.1, "train.max_grad_norm": 0,
    "train.precision": "float32", "train.eval_every": 5, "train.patience": 2, "search.strategy": "tpe", "search.ranks": [4, 8],
    "search.learning_rates": [1e-3], "search.seed": 1001, "search.steps": 20, "search.widen": 2, "search.options": {"alphas": [4]},
    "search.first_rung": 9, "search.reduction_factor": 4, "search.alphas": [8], "search.trials": 8, "search.sampler": "nsga2",
    "search.max_parameters": 1000, "search.max_adapter_mib": 1.5, "decide.seeds": 4, "decide.margin": 0.02, "decide.level": 0.1, "decide.weight": "example",
    "decide.looks": [3, 5], "decide.score": "loss", "decide.verdict": False, "references.head": [1e-2], "references.full": [1e-4],
    "references.subspace": [1e-2], "references.dimensions": [10], "references.seeds": 2, "search.scalings": ["rslora"], "search.shortlist": 3,
    "search.losses": "summed", "search.surface": True, "confirm.seeds": 3,
    "contest.contenders": {"thumb": {"strategy": "rule_of_thumb"}}, "contest.rank": 8, "contest.trials": 3,
}  # fmt: skip


def folder_of(name, value):
    pareto, halving, squeeze = ({"search__strategy": name} for name in ("pareto", "halving", "squeeze"))
    needed = {
        "search.max_parameters": pareto, "search.max_adapter_mib": pareto, "train.patience": {"train__eval_every": 7},
        "search.sampler": pareto, "search.trials": pareto, "search.first_rung": halving, "search.reduction_factor": halving,
        "search.losses": {"search__strategy": "nested"}, "search.shortlist": squeeze,
        "launcher.dry_run": {"launcher__name": "slurm"}, "references.subspace": {"references__dimensions": [20]}, "references.dimensions": {"references__subspace": [1e-1]},
    }  # fmt: skip
    return config(**{name.replace(".", "__"): value}, **needed.get(name, {})).study_folder.name


def test_the_folder_changes_with_every_option_that_decides_a_result_and_with_no_other():
    of_strategies = {"alphas", "scalings", "first_rung", "reduction_factor", "trials", "sampler", "max_parameters"}
    of_strategies |= {"max_adapter_mib", "shortlist", "losses"}
    named = {f"search.{name}" for name in of_strategies}
    assert {*SAME_STUDY, *OTHER_STUDY, "study"} == {*option_names(StudyConfig), *named}
    same = config().study_folder.name
    assert {folder_of(name, value) for name, value in SAME_STUDY.items()} == {same}
    others = {name: folder_of(name, value) for name, value in OTHER_STUDY.items()}
    assert same not in others.values()
    assert len(set(others.values())) == len(others)
    for name in ("pareto", "halving", "squeeze"):
        assert config(search__strategy=name).study_folder.name not in others.values()
    assert config(train__eval_every=7).study_folder.name != others["train.patience"]
    assert config(search__strategy="nested").study_folder.name != others["search.losses"]


def test_the_folder_is_the_name_and_a_hash_that_ignores_the_name():
    folder = config(study="other", workspace="w").study_folder
    assert folder.parent.as_posix() == "w/studies"
    assert folder.name == config().study_folder.name.replace("s-", "other-", 1)
    assert len(folder.name.rpartition("-")[2]) == 8
    spelled = config(search__ranks=[32, 16, 8, 4], decide__seeds=[0, 1, 2, 3, 4], lora__alpha=16)
    assert spelled.study_folder == config().study_folder


def test_the_least_number_of_seeds_is_the_rules():
    assert LEAST_SEEDS == power.LEAST_SEEDS


@pytest.mark.parametrize("written", ["1pt", "1 point", "1%", 0.01, "0.01"])
def test_a_margin_is_one_study_however_it_is_written(written):
    made = config(decide__margin=written)
    assert made.to_dict()["decide"]["margin"] == 0.01
    assert made.study_folder == config(decide__margin=0.01).study_folder


@pytest.mark.parametrize(("margin", "score", "says"), [
    (2, "accuracy", "2pt or 0.02"), ("0.01nat", "accuracy", "nats are for losses"), ("2pt", "loss", "points are for accuracies"),
    (True, "accuracy", "no margin is written like that"), ([2], "loss", "no margin is written like that"),
    ("100%", "loss", "forgives everything"), ("0%", "loss", "a finite number above 0"), ("-2%", "loss", "above 0"),
])  # fmt: skip
def test_a_margin_in_the_wrong_unit_is_refused(margin, score, says):
    with pytest.raises(ConfigError, match=says) as refused:
        config(decide__margin=margin, decide__score=score)
    assert "option 'decide.margin'" in str(refused.value)
    assert config(decide__margin="0.02 nats", decide__score="loss").decide.margin == 0.02


def test_a_margin_that_is_not_written_is_what_the_metric_says_of_itself():
    assert config(decide__margin=None).decide.margin == 0.01
    assert config(decide__margin=None, decide__score="loss").decide.margin == 0.01
    language = config(task={"name": "sft", "path": "x.jsonl"}, decide__margin=None, decide__score=None)
    assert (language.decide.score, language.decide.margin) == ("loss", "2%")
    assert parse(StudyConfig, language.to_dict()).decide == language.decide
    written = config(task={"name": "sft", "path": "x.jsonl"}, decide__margin="2 %", decide__score=None)
    assert written.study_folder == language.study_folder


def test_wanting_a_verdict_is_no_part_of_a_studys_name_and_wanting_none_is():
    values = config().to_dict()
    assert values["decide"].pop("verdict") is True
    assert parse(StudyConfig, values).study_folder == config().study_folder
    assert config(decide__verdict=False).study_folder != config().study_folder
    with pytest.raises(ConfigError, match="looks is \\[5\\], and without a verdict"):
        config(decide__verdict=False, decide__looks=[5])
    with pytest.raises(ConfigError, match="decide.verdict is false; name one of search.ranks"):
        config(decide__verdict=False, contest__contenders={"thumb": {"strategy": "rule_of_thumb"}})
