"""What makes a comparison of ranks valid, checked on the record: each condition with its evidence and its remedy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from statistics import mean

from rankexp.analysis.check import RECOMMENDED_SEEDS, Check, example_count, listed, no_heavy_document, seed_count
from rankexp.analysis.diagnosis import Diagnosis
from rankexp.analysis.opened_split import test_once
from rankexp.analysis.rate_validity import equal_tuning, own_tuning_runs, rates_inside, rates_tuned_well, tuned_rates
from rankexp.analysis.study import Study
from rankexp.candidates import BASE, HEAD, CandidateName
from rankexp.record.trial import Trial
from rankexp.trial_spec import TrialSpec

SPLITS = ("train", "tune", "decide", "test")
_MAY_DIFFER = {"rank_map", "alpha", "learning_rate", "seed"}


def checks(study: Study) -> tuple[Check, ...]:
    """Check every condition of a valid comparison, in the order in which a study meets them."""
    return (
        disjoint_splits(study),
        same_training(study),
        equal_tuning(study),
        tuned_rates(study),
        own_tuning_runs(study),
        nothing_left_out(study),
        rates_inside(study),
        rates_tuned_well(study),
        same_seeds(study),
        stable_ranks(study),
        nothing_pruned(study),
        test_once(study),
        adapter_on_disk(study),
        adapted_weights(study),
        enough_seeds(study),
        enough_examples(study),
        no_heavy_document(study.comparison),
        head_reference(study),
        gains_more_than_margin(study),
    )


def disjoint_splits(study: Study) -> Check:
    """Four splits, and no text in two of them."""
    name, data = "Four disjoint splits", study.record.data
    counts = {split: data.get("splits", {}).get(split, {}).get("examples", 0) for split in SPLITS}
    overlaps = data.get("overlaps")
    sizes = listed(f"{split} {count:,}" for split, count in counts.items())
    if overlaps is None:
        return Check(name, None, f"Whether a text is in two splits was not recorded ({sizes}).")
    passed = overlaps == 0 and min(counts.values()) > 0
    remedy = "Remove texts that are in two splits, and give each of the four at least one example."
    return Check(name, passed, f"{sizes} examples; {overlaps} texts in more than one.", "" if passed else remedy)


def same_training(study: Study) -> Check:
    """The same steps, batch, modules, initialisation and scaling rule over ranks."""
    name = "Same training for every rank"
    specs = _evidence_specs(study)
    if not specs:
        return Check(name, None, "No rank has been trained for the decision yet.")
    tuned = {"scaling"} if study.config.search.options.get("scalings") else set()
    names = [item.name for item in fields(TrialSpec) if item.name not in _MAY_DIFFER | tuned]
    different = [item for item in names if len({getattr(spec, item) for spec in specs}) > 1]
    if len({frozenset(spec.rank_map) for spec in specs}) > 1:
        different.append("adapted modules")
    if different:
        remedy = "Train every rank again with one setting of these."
        return Check(name, False, f"The runs differ in {listed(different)}.", remedy)
    spec = specs[0]
    most = "at most " if spec.patience else ""
    evidence = (
        f"All {len(specs)} runs: {most}{spec.steps:,} steps of {spec.batch_size * spec.accumulation} examples, "
        f"{len(spec.rank_map)} modules, {spec.scaling} scaling, {spec.precision}, initialised by the same rule."
    )
    return Check(name, True, evidence)


def nothing_left_out(study: Study) -> Check:
    """Every candidate was compared, or a screen left it out."""
    name = "Every rank compared"
    if not study.ranks:
        return Check(name, None, "The decision has not begun.")
    if not study.screened:
        return Check(name, True, f"All {len(study.ranks)} ranks were compared.")
    left = listed(map(CandidateName.of_rank, study.screened))
    remedy = "Raise search.shortlist, or confirm with search=grid."
    return Check(name, False, f"Left out by the screen, which is no evidence: {left}.", remedy, advisory=True)


def same_seeds(study: Study) -> Check:
    """Every rank has a usable result for every seed."""
    name = "Same seeds for every rank, complete"
    seeds = set(study.seeds[: study.comparison.sizes[study.look]])
    if not study.ranks:
        return Check(name, None, "The decision has not begun.")
    missing = {one: len(seeds) - len({t.spec.seed for t in study.completed(one)} & seeds) for one in study.ladder}
    if not any(missing.values()):
        return Check(name, True, f"{len(seeds)} seeds, complete for all {len(study.ranks)} ranks.")
    evidence = f"Without a result: {listed(f'{one} {n} of {len(seeds)}' for one, n in missing.items() if n)}."
    return Check(name, False, evidence, "Run the same `rankexp sweep` again; a seed that stays missing does not count.")


def stable_ranks(study: Study) -> Check:
    """No seed diverged, collapsed or lies far below its fellows."""
    name = "Stable training"
    if not study.ranks:
        return Check(name, None, "The decision has not begun.")
    if not study.unstable:
        return Check(name, True, "No seed of any rank diverged, collapsed or lies far below its fellows.")
    found = {one: study.diagnoses(one) for one in map(CandidateName.of_rank, study.unstable)}
    lower = _seeds_of(found, [Diagnosis.DIVERGED, Diagnosis.COLLAPSED])
    dropped = _seeds_of(found, [Diagnosis.DROPPED])
    longer = _seeds_of(found, [Diagnosis.UNLEARNED])
    evidence = [f"Diverged, or no better than {study.start}: {lower}."] if lower else []
    evidence += [f"Far below their fellows, the other seeds and ranks: {dropped}."] if dropped else []
    evidence += [f"Learned nothing yet, as far as {study.comparison.nothing}: {longer}."] if longer else []
    cure = "Add warm-up, clip gradients or tune over lower rates; an unstable rank cannot be chosen."
    remedies = [cure] if lower or dropped else []
    remedies += ["Raise train.steps or the learning rates."] if longer else []
    return Check(name, False, " ".join(evidence), " ".join(remedies))


def _seeds_of(found: Mapping[CandidateName, Mapping[int, Diagnosis]], wanted: Sequence[Diagnosis]) -> str:
    seeds = {name: [s for s, diagnosis in of.items() if diagnosis in wanted] for name, of in found.items()}
    return listed(f"{name} (seeds {listed(some)})" for name, some in seeds.items() if some)


def nothing_pruned(study: Study) -> Check:
    """No run that was stopped early is evidence, neither one that a search pruned nor one that lacks steps."""
    name = "No pruned run is evidence"
    pruned = {item.key for item in study.pruned}
    keys = {item.key for item in study.record.planned if item.role == "evidence"}
    used = {key for key in keys if (_stopped_early(study.by_key[key]) if key in study.by_key else key in pruned)}
    if used:
        return Check(name, False, f"{len(used)} runs of the comparison ended early.", "Train these to their last step.")
    evidence = f"{len(pruned)} runs were pruned, all of them in the screen." if pruned else "None was pruned."
    return Check(name, True, evidence)


def _stopped_early(trial: Trial) -> bool:
    spec = trial.spec  # patience is a part of the training that is compared, the same for every rank
    return trial.result.status == "completed" and not spec.patience and len(trial.result.history) < spec.steps


def adapter_on_disk(study: Study) -> Check:
    """One adapter, read back onto base weights loaded afresh, gives the scores that were recorded with it."""
    name, found = "The adapter on disk gives its recorded scores", study.record.notes.get("read_back")
    if not found:
        return Check(name, None, "None was read back yet.", "Run the same `rankexp sweep` again.")
    adapter = f"{CandidateName.of_rank(found['rank'])} seed {found['seed']}, {found['examples']} examples one at a time"
    evidence = (
        f"{adapter}: losses differ by at most {found['loss_difference']:.1g} ({found['tolerance']:g} is rounding), "
        f"{found['agreement']:.0%} agree."
    )
    remedy = "Do not use these adapters; please report it, with the model's config.json."
    return Check(name, found["passed"], evidence, "" if found["passed"] else remedy)


def adapted_weights(study: Study) -> Check:
    """What of the base the adapters reach, and whether matrices are left out that are no layers."""
    name, reach = "What the adapters reach", study.record.model.get("reach")
    if not reach:
        return Check(name, None, "It was not recorded.", advisory=True)
    layers = sum(kind["count"] for kind in reach["adapted"])
    evidence = f"{layers} layers with {reach['share']:.0%} of the base's parameters."
    left = [f"{kind['count']} x {kind['name']} ({kind['share']:.0%})" for kind in (*reach["bare"], *reach["linear"])]
    if left:
        evidence += f" Left as they are: {listed(left)}."
    if drawn := study.record.model.get("drawn"):
        evidence += f" Drawn at random, since the files lack them, and saved with each adapter: {listed(drawn)}."
    remedy = (
        "The experts of a mixture are bare parameters, which LoRA layers cannot go around; mind that in the verdict."
    )
    bare = bool(reach["bare"])
    return Check(name, not bare, evidence, remedy if bare else "", advisory=True)


def enough_seeds(study: Study) -> Check:
    """At least three seeds, better five."""
    if not study.asked:
        return Check("Enough seeds", None, "No verdict was asked for.")
    used = study.verdict.seeds if study.verdict is not None else len(study.seeds)
    remedy = f"Set decide.seeds={RECOMMENDED_SEEDS} or more; finished runs are not trained again."
    return seed_count(used, remedy)


def enough_examples(study: Study) -> Check:
    """At least 2,000 independent examples to decide on."""
    return example_count(study.scores, "Enlarge the decide split.")


def head_reference(study: Study) -> Check:
    """What there is before any rank: head only, or the model as it is; without it collapsed runs cannot be seen."""
    has_head = study.record.has_head
    name = "Head-only reference" if has_head else "The model as it is"
    if math.isfinite(study.head_score):
        what = "The head alone" if has_head else "It"
        return Check(name, True, f"{what} reaches {study.head_score:.3f} on tune.", advisory=True)
    evidence = "It was not scored" if not has_head else "There is none"
    remedy = (
        "Give references.head a learning rate." if has_head else "Give references.head any rate: it trains nothing."
    )
    if study.majority:
        reached = f"{study.majority['tune']:.3f} on tune"
        evidence = f"{evidence}; the majority class alone, {reached}, tells what learned nothing."
    else:
        evidence = f"{evidence}, so a run that learned nothing cannot be told from a poor one."
    return Check(name, False, evidence, remedy, advisory=True)


def gains_more_than_margin(study: Study) -> Check:
    """The reference rank gains more on ``decide`` than the margin forgives; else training nothing would do as well."""
    name, verdict, metric = "Training gains more than the margin", study.verdict, study.metric
    rank = 0 if verdict is None else verdict.reference_rank
    before = study.decide_means(HEAD if study.record.has_head else BASE)
    after = study.decide_means(CandidateName.of_rank(rank)) if rank else {}
    if not before or not after:
        return Check(name, None, "Nothing is compared yet, or nothing was scored before any rank.", advisory=True)
    gained = mean(after.values()) - mean(before.values())
    passed = gained > study.margin
    more = f"{metric.amount(gained)} {'better' if gained >= 0 else 'worse'} than {study.start}"
    evidence = f"Rank {rank} is {more} on decide; the margin is {metric.amount(study.margin)}."
    remedy = (
        "Set a margin that is a small part of what training gains (decide.margin), train longer, or compare by another "
        "metric: no rank at all would be within this margin."
    )
    return Check(name, passed, evidence, "" if passed else remedy)


def _evidence_specs(study: Study) -> list[TrialSpec]:
    return [t.spec for name in study.ladder for t in study.evidence(name) if t is not None]
