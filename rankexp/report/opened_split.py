"""What the untouched test split said, in plain words. Reads the assembled document only."""

from __future__ import annotations

from rankexp.report.canvas import Document
from rankexp.report.formats import amount, confidence, count, metric_of, score


def test_sentence(doc: Document) -> str:
    """Say what the untouched test split said, with the seeds of the decision and with new ones."""
    return " ".join(filter(None, (_opened(doc), _anew(doc))))


def _anew(doc: Document) -> str:
    """Say what seeds that nobody had seen make of the choice; empty where none were trained."""
    found = doc["anew"]
    if not found:
        return ""
    means = ", ".join(
        f"rank {rank} scores {score(row['mean'], metric_of(doc))}" for rank, row in found["ranks"].items()
    )
    said = f"Trained anew with {count(found['seeds'])} seeds that nobody had seen, {means} there"
    if found["lost"]:
        runs = "run was" if found["lost"] == 1 else "runs were"
        return f"{said}; {count(found['lost'])} {runs} lost, so that confirms nothing."
    judged = {True: "which confirms the choice", False: "which does not confirm it", None: "too little to judge by"}
    bound = ""
    if found["lower"] is not None:
        bound = f"; with {confidence(found['level'])} confidence {worst(found['lower'], doc)}"
    return f"{said}{bound}, {judged[found['confirmed']]}."


def _opened(doc: Document) -> str:
    """Say what the test split said with the seeds of the decision."""
    test = doc["test"]
    if not doc["setup"]:
        return "There is none: confirm the choice on examples that nobody has looked at."
    if test is None:
        return "Not opened." if doc["chosen_rank"] is None else "Not opened, so the choice is unconfirmed."
    means = ", ".join(f"rank {rank} scores {score(row['mean'], metric_of(doc))}" for rank, row in test["ranks"].items())
    if test["difference"] is None:
        return f"Opened once: {means} on {count(test['examples'])} new examples."
    said = {True: "confirms the choice", False: "leaves the choice unconfirmed", None: "has too few seeds to judge"}
    bound = ""
    if test["lower"] is not None:
        bound = f"; with {confidence(test['level'])} confidence {worst(test['lower'], doc)}"
    return (
        f"It {said[test['confirmed']]}: {means} on {count(test['examples'])} new examples, with the same seeds{bound}."
    )


def worst(lower: float, doc: Document) -> str:
    """Say how far below, or above, a rank may lie in the unlucky case."""
    size = amount(lower, metric_of(doc))
    return f"at least {size} above" if lower > 0 else f"at most {size} below"
