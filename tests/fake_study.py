"""Studies with made-up scores, written through the real record: for tests of what reads studies."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import numpy as np
from safetensors.numpy import save

from rankexp.analysis.rates import tuned_rates
from rankexp.analysis.scoring import all_means_of
from rankexp.analysis.screen import ScreenRow
from rankexp.candidates import CandidateName
from rankexp.metrics import BEFORE
from rankexp.ranks import RankMap
from rankexp.record.ledger import TestLedger
from rankexp.record.scores import Scores
from rankexp.record.studies import Planned, StudyRecord, StudyStore
from rankexp.record.trial import Trial, TrialResult
from rankexp.record.trials import TrialStore
from rankexp.trial_spec import Pruning, TrialSpec

SHAPES = {f"encoder.layer.{i}.attention.self.{m}": (64, 64) for i in range(2) for m in ("query", "value")}
KINDS = [{"name": f"encoder.layer.attention.self.{m}", "count": 2, "share": 0.02} for m in ("query", "value")]
REACH = {"share": 0.04, "adapted": KINDS, "linear": [], "bare": []}
READ_BACK = {"key": "2" * 20, "rank": 8, "seed": 0, "examples": 64, "loss_difference": 2e-7, "agreement": 1.0,
             "tolerance": 1e-4, "passed": True}  # fmt: skip
MAPS = {
    "rising": (RankMap(dict(zip(SHAPES, (4, 4, 12, 12), strict=True))), 0.73),
    "falling": (RankMap(dict(zip(SHAPES, (12, 12, 4, 4), strict=True))), 0.69),
    "half": (RankMap.uniform(SHAPES, 4), 0.66),
}
"""Contenders: two of the parameters of rank 8, and one of half of them; and their accuracies."""
PRUNED = {**MAPS, "adalora": (RankMap.uniform(SHAPES, 12), 0.7)}
PRUNINGS = {"adalora": Pruning(budget=32, first=6, last=36)}
"""Beside those one that loses triplets, from rank 12 in every layer to as many as rank 8 has, and how it does so."""
RATES = (1e-3, 3e-3, 1e-2)
CLEAR = {4: 0.66, 8: 0.72, 16: 0.722, 32: 0.723}

_PLACE = TemporaryDirectory(prefix="rankexp-fake-trials-")
_MADE: dict[str, Trial] = {}
"""Trials that were made in this process, by what was asked for."""


def make_scores(accuracy: float, examples: int, seed: int, split: str) -> Scores:
    """Examples of a shared difficulty, answered with the given accuracy; a tenth belong to documents of five."""
    difficulty = np.random.default_rng(len(split)).normal(size=examples)
    noise = np.random.default_rng([seed, round(accuracy * 1e6)]).normal(scale=0.3, size=examples)
    latent = difficulty + noise
    correct = latent < np.quantile(latent, accuracy)
    ids = np.array([f"{split}-{i}" for i in range(examples)])
    in_document = np.arange(examples) < examples // 10
    groups = np.where(in_document, np.array([f"document-{i // 5}" for i in range(examples)]), ids)
    losses = np.where(correct, 0.3, 1.5).astype(np.float32)
    return Scores(ids, groups, {"accuracy": correct.astype(np.float32), "loss": losses})


def make_trial(store: TrialStore, **asked: Any) -> Trial:
    """Record one trial as :func:`_record` does; the same trial is made once in a process, and copied from then on."""
    key = repr(sorted(asked.items()))
    if key not in _MADE:
        _MADE[key] = _record(TrialStore(Path(_PLACE.name) / str(len(_MADE))), **asked)
    made = _MADE[key]
    if made.key not in store:
        shutil.copytree(made.folder, store.folder(made.key))
    return store.read(made.key)


def _record(
    store: TrialStore,
    *,
    rank: int | None,
    learning_rate: float,
    seed: int,
    accuracy: float,
    examples: int,
    splits: Sequence[str],
    status: str = "completed",
    method: str | None = None,
    dimension: int = 0,
    shapes: Mapping[str, tuple[int, int]] = SHAPES,
    rank_map: RankMap | None = None,
    pruning: Pruning | None = None,
) -> Trial:
    """Record one trial; ``rank`` 0 is the head alone and None full fine-tuning, unless there is a map."""
    method = "subspace" if dimension else method or {None: "full", 0: "head"}.get(rank, "lora")
    if rank_map is None:
        rank_map = RankMap.uniform(shapes, rank or 0) if method == "lora" else RankMap()
    left = RankMap.uniform(shapes, pruning.budget // len(shapes)) if pruning else rank_map
    spec = TrialSpec(
        model="0" * 20, data="1" * 20, task="sentiment", method=method, rank_map=rank_map,  # type: ignore[arg-type]
        pruning=pruning, dimension=dimension, learning_rate=learning_rate, steps=60, seed=seed, evaluate=tuple(splits), precision="bfloat16",
    )  # fmt: skip
    quality = {s: min(accuracy + 0.01 * np.log2(2 + (rank or 0)), 0.99) if s == "train" else accuracy for s in splits}
    scores = {s: make_scores(quality[s], examples, seed, s) for s in splits} if status == "completed" else {}
    result = TrialResult(
        status=status,  # type: ignore[arg-type]
        reason="" if status == "completed" else "the loss was nan at step 7",
        metrics={s: all_means_of(v, BEFORE) | {"examples": examples} for s, v in scores.items()},
        history=tuple(
            {"step": i, "loss": 1.1 - i / 120, "learning_rate": learning_rate * (1 - i / 60), "grad_norm": 1.0,
             **triplets(i, pruning, rank_map)}
            for i in range(1, 61)
        ),
        cost={
            "trainable_parameters": rank_map.cost(shapes) + 1155 if method in ("lora", "adalora", "head") else 22_000_000,
            "adapter_bytes": 4 * left.cost(shapes) + 5000,
            "peak_memory_bytes": 9e8, "step_seconds_median": 0.2, "step_seconds_p95": 0.31,
            "tokens_per_second": 4100.0, "train_seconds": 12.5, "eval_seconds": 4.0,
        },
        environment={"python": "3.11.7", "torch": "2.13.0", "device": "cpu"},
        finished="2026-11-01T12:00:00+00:00",
    )  # fmt: skip
    kept = "decide" in scores and method in ("lora", "adalora", "full")
    return store.write(
        spec, result, scores, (lambda folder: save_updates(folder, spec, left, shapes)) if kept else None
    )


def triplets(step: int, pruning: Pruning | None, ranks: RankMap) -> dict[str, int]:
    """What an AdaLoRA trial measures after a step; nothing of any other."""
    if pruning is None:
        return {}
    from rankexp.lora.adalora import triplets_at

    return {"triplets": triplets_at(step, pruning, sum(ranks.values()))}


def save_updates(folder: Path, spec: TrialSpec, ranks: RankMap, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Write made-up factors whose directions fade, or the spectrum of a full update."""
    rng = np.random.default_rng(spec.seed)
    tensors = {}
    for name, (wide, out) in shapes.items():
        if spec.method == "full":
            tensors[name] = np.sort(rng.exponential(size=min(wide, out)) ** 2)[::-1].astype(np.float32)
            continue
        if not (rank := ranks.get(name, 0)):
            continue
        fading = 0.8 ** np.arange(rank)
        tensors[f"base_model.model.{name}.lora_A.weight"] = rng.normal(size=(rank, wide)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = (rng.normal(size=(out, rank)) * fading).astype(np.float32)
    folder.mkdir(exist_ok=True)
    file = "update_spectrum" if spec.method == "full" else "adapter_model"
    (folder / f"{file}.safetensors").write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}))


def make_study(
    workspace: Path,
    *,
    accuracies: Mapping[int, float] | None = None,
    seeds: int = 3,
    examples: int = 2000,
    margin: float = 0.02,
    open_test: bool = False,
    diverged: Sequence[tuple[int, int]] = (),
    missing: Sequence[tuple[int, int]] = (),
    rates: Sequence[float] = RATES,
    name: str = "fake-01234567",
    labels: Sequence[str] = ("negative", "neutral", "positive"),
    dimensions: Sequence[int] = (),
    score: str = "accuracy",
    weight: str | None = None,
    looks: Sequence[int] = (),
    look: int = 0,
    verdict: bool = True,
    majority: float = 0.0,
    notes: Mapping[str, Any] = MappingProxyType({}),
    contenders: Mapping[str, tuple[RankMap, float]] = MappingProxyType({}),
    prunings: Mapping[str, Pruning] = MappingProxyType({}),
    contest_rank: int = 8,
    surface: bool = False,
    lowered: Sequence[tuple[int, int]] = (),
) -> Path:
    """Record a study of every phase and return its folder.

    ``diverged`` and ``missing`` list (rank, seed) pairs of the decide step; ``contenders`` have a map and an accuracy;
    those with ``prunings`` are AdaLoRA. ``majority`` is the share of the largest class; 0 for a study of before it was kept.
    Runs that are ``lowered``, as (rank, seed), lie 8 points below their fellows. With ``surface`` the screen locates rates: the coarse ones are tried at a middle rank, half steps at all others.
    """
    accuracies = dict(accuracies or CLEAR)
    store, planned = TrialStore(workspace), []
    common: dict[str, Any] = {"examples": examples}

    def add(phase: str, candidate: str, rank: int | None, role: str, trial: Trial) -> None:
        planned.append(Planned(trial.key, phase, candidate, rank, role))  # type: ignore[arg-type]

    best = rates[len(rates) // 2]
    for rate in (1e-2, 3e-2, 1e-1):
        trial = make_trial(store, rank=0, learning_rate=rate, seed=1000, accuracy=0.5 - abs(rate - 3e-2),
                           splits=("tune",), **common)  # fmt: skip
        add("reference", "head", 0, "tuning", trial)
    for candidate, rank, accuracy in (("head", 0, 0.5), ("full", None, 0.73)):
        trial = make_trial(store, rank=rank, learning_rate=3e-2 if rank == 0 else 1e-4, seed=0, accuracy=accuracy,
                           splits=("train", "tune", "decide"), **common)  # fmt: skip
        add("reference", candidate, rank, "evidence", trial)
    for number, dimension in enumerate(dimensions):
        trial = make_trial(store, rank=None, learning_rate=1e-2, seed=0, accuracy=0.6 + 0.04 * number,
                           splits=("train", "tune", "decide"), dimension=dimension, **common)  # fmt: skip
        add("reference", f"d={dimension}", None, "evidence", trial)
    peak = 1.2 * best if surface else best
    middle, rows = list(accuracies)[(len(accuracies) - 1) // 2], []
    close = [float(f"{best * 10**shift:.3g}") for shift in (-0.25, 0.0, 0.25)]
    for rank, accuracy in accuracies.items():
        for rate in close if surface and rank != middle else rates:
            trial = make_trial(store, rank=rank, learning_rate=rate, seed=1000, splits=("tune",),
                               accuracy=accuracy - 0.02 * abs(np.log(rate / peak)), **common)  # fmt: skip
            add("screen", f"r={rank}", rank, "tuning", trial)
            rows.append(ScreenRow.of(CandidateName.of_rank(rank), trial))
    tuned = {name.rank: found.learning_rate for name, found in tuned_rates(rows, 0.25 if surface else None).items()}
    for rank, accuracy in accuracies.items():
        for seed in range(seeds):
            status = "diverged" if (rank, seed) in diverged else "completed"
            shift = np.random.default_rng([rank, seed]).normal(scale=0.002)
            shift -= 0.08 * ((rank, seed) in lowered)
            trial = make_trial(store, rank=rank, learning_rate=tuned[rank] if surface else best, seed=seed, accuracy=accuracy + shift,
                               splits=("train", "tune", "decide"), status=status, **common)  # fmt: skip
            add("decide", f"r={rank}", rank, "evidence", trial)
            if (rank, seed) in missing:
                shutil.rmtree(trial.folder)
    for contender, (ranks, accuracy) in contenders.items():
        pruning = prunings.get(contender)
        kind = {"method": "adalora" if pruning else "lora", "rank_map": ranks, "pruning": pruning}
        for rate in rates:
            trial = make_trial(store, rank=None, learning_rate=rate, seed=1000, splits=("tune",),
                               accuracy=accuracy - 0.02 * abs(np.log(rate / best)), **kind, **common)  # fmt: skip
            add("contest", contender, None, "tuning", trial)
        for seed in range(seeds):
            shift = np.random.default_rng([*contender.encode(), seed]).normal(scale=0.002)
            trial = make_trial(store, rank=None, learning_rate=best, seed=seed, accuracy=accuracy + shift,
                               splits=("train", "tune", "decide"), **kind, **common)  # fmt: skip
            add("contest", contender, None, "evidence", trial)
    values = _study_values(seeds, margin, rates, accuracies, labels, examples, dimensions)
    values["config"]["decide"] |= {"score": score, "weight": weight, "looks": list(looks)}
    values["config"]["search"] |= {"surface": True} if surface else {}
    values["config"]["decide"] |= {} if verdict else {"verdict": False}
    answer = {"label": labels[0], "accuracy": majority, "loss": 1.0}
    values["data"] |= {"majority": {"tune": answer, "decide": answer}} if majority else {}
    values["notes"] |= {"look": look} if looks else {}
    values["notes"] |= notes
    if contenders:
        values["config"]["contest"] = {
            "contenders": {
                name: {"strategy": "adalora"} if name in prunings
                else {"strategy": "allocated", "allocator": {"name": "by_depth"}}
                for name in contenders
            },
            "rank": contest_rank, "trials": len(rates),
        }  # fmt: skip
        maps = {
            name: {"key": "0" * 8, "ranks": dict(ranks), "cost": {"seconds": 1.5}}
            for name, (ranks, _) in contenders.items()
            if name not in prunings
        }
        values["notes"] |= {"contest": {"rank": contest_rank, "maps": maps}}
    study = StudyStore(workspace / "studies" / name)
    study.write(StudyRecord(name=name, planned=tuple(planned), created="2026-11-01T11:00:00+00:00", **values))  # fmt: skip
    if open_test:
        _open_test(study, store, examples)
    return study.folder


def _study_values(seeds, margin, rates, accuracies, labels, examples, dimensions) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    config = {
        "study": "fake", "workspace": "runs", "device": "auto", "task": {"name": "sentiment"},
        "model": {"name": "MiniLM-L6", "source": "asset", "path": "minilm"},
        "lora": {"alpha": 16.0, "scaling": "standard", "dropout": 0.0, "target_modules": "all-linear"},
        "train": {"steps": 60, "batch_size": 32, "accumulation": 1, "schedule": "linear", "warmup_steps": 6,
                  "weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "auto", "eval_every": 0},
        "search": {"strategy": "grid", "ranks": list(accuracies), "learning_rates": list(rates), "seed": 1000,
                   "steps": None, "widen": 1, "alphas": [], "trials": 24},
        "decide": {"seeds": list(range(seeds)), "margin": margin, "level": 0.05, "score": "accuracy"},
        "references": {"head": [1e-2, 3e-2, 1e-1], "full": [1e-4], "dimensions": list(dimensions),
                       "subspace": [1e-2] if dimensions else []},
        "tracking": {"name": "none", "uri": None},
    }  # fmt: skip
    counts = {s: {"examples": examples, "groups": examples - examples // 10 + examples // 50}
              for s in ("train", "tune", "decide", "test")}  # fmt: skip
    return {
        "config": config,
        "model": {"name": "MiniLM-L6", "fingerprint": "0" * 20, "parameters": 22_713_216, "head": ["classifier"],
                  "shapes": {name: list(shape) for name, shape in SHAPES.items()}, "source": "asset:minilm", "reach": REACH},
        "data": {"name": "sentiment", "fingerprint": "1" * 20, "test_fingerprint": "2" * 20, "labels": list(labels), "splits": counts,
                 "dropped_duplicates": 84, "overlaps": 0},
        "settings": {"precision": "bfloat16", "device": "cpu", "bfloat16_speedup": 2.1},
        "notes": {"widened": 0, "read_back": READ_BACK},
    }  # fmt: skip


def _open_test(study: StudyStore, store: TrialStore, examples: int) -> None:
    from rankexp.analysis.study import load_study

    result = load_study(study.folder)
    assert result.verdict is not None
    pair = {result.verdict.chosen_rank, result.verdict.reference_rank} - {None}
    trials = [t for rank in sorted(pair) for t in result.chosen_trials(rank)]
    TestLedger(study.workspace).open("2" * 20, result.name, [t.key for t in trials])
    for trial in trials:
        accuracy = trial.result.metrics["decide"]["accuracy"]
        study.write_test_scores(trial.key, make_scores(accuracy, examples, trial.spec.seed + 50, "test"))
