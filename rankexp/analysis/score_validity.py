"""What can be said of the validity of a comparison of which nothing is known but its scores."""

from __future__ import annotations

from rankexp.analysis.check import Check, example_count, listed, no_heavy_document, seed_count
from rankexp.analysis.statistics.comparison import Comparison
from rankexp.candidates import CandidateName


def score_checks(comparison: Comparison) -> tuple[Check, ...]:
    """Check what the scores alone can show; the rest stays for whoever trained the runs to vouch for."""
    vouch = "Scores cannot show it: a comparison is fair only if {}."
    asked = (
        ("Same training for every rank", "every rank had the same steps, batches, modules and scaling rule"),
        ("Learning rate tuned for each rank", "each rank had its own best rate, chosen on other examples"),
        ("Fresh examples", "no choice was made on these examples before"),
    )
    return (
        *(Check(name, None, vouch.format(condition)) for name, condition in asked),
        _complete_cells(comparison),
        _declared_stable(comparison),
        seed_count(comparison.verdict.seeds if comparison.verdict else 0, "Train more seeds of every rank."),
        example_count(comparison.scores, "Score more examples."),
        no_heavy_document(comparison),
    )


def _complete_cells(comparison: Comparison) -> Check:
    name, scores = "Same seeds for every rank, complete", comparison.scores
    counted = [rank for rank in scores.ranks if rank not in comparison.unstable] or scores.ranks
    missing = {rank: len(scores.seeds) - len(scores.means(rank)) for rank in counted}
    if not any(missing.values()):
        return Check(name, True, f"{len(scores.seeds)} seeds, complete for all {len(counted)} ranks.")
    lacking = listed(f"{CandidateName.of_rank(rank)} {n} of {len(scores.seeds)}" for rank, n in missing.items() if n)
    remedy = "Score these runs on every example; a seed that one rank lacks does not count for any."
    return Check(name, False, f"Incomplete seeds: {lacking}.", remedy)


def _declared_stable(comparison: Comparison) -> Check:
    name = "Stable training"
    if not comparison.unstable:
        return Check(name, None, "Scores cannot show it: name ranks that diverged with --unstable.")
    bad = listed(map(CandidateName.of_rank, comparison.unstable))
    remedy = "Train these ranks at a lower rate; an unstable rank cannot be chosen."
    return Check(name, False, f"Declared unstable: {bad}.", remedy)
