"""The verdict in plain words, for a reader who knows LoRA and no statistics. Reads the assembled document only."""

from __future__ import annotations

from typing import Any

from rankexp.analysis.statistics.power import LEAST_SEEDS
from rankexp.analysis.statistics.sparse import LEAST_GROUPS
from rankexp.report.canvas import Document
from rankexp.report.formats import amount, confidence, count, evidence_unit, metric_of, percent, rate
from rankexp.report.opened_split import test_sentence, worst

_LEFT_OUT = "left out by the screen"
"""What the reason of a verdict says of ranks that have no scores."""


def summary(doc: Document) -> dict[str, Any]:
    """Say what to do, how sure that is, what the test split said and what would change the answer."""
    return {
        "headline": headline(doc),
        "meaning": meaning(doc),
        "certainty": certainty(doc),
        "reason": reason(doc),
        "test": test_sentence(doc),
        "change": change(doc),
    }


def start(doc: Document) -> str:
    """Name what there is before any rank."""
    return "the head alone" if has_head(doc) else "the model as it is"


def has_head(doc: Document) -> bool:
    """Whether something of the model is new, such as a classifier's head, which is trained beside every adapter."""
    return doc["setup"] is None or bool(doc["setup"]["model"].get("head", True))


def headline(doc: Document) -> str:
    """Say what to do, in one or two short sentences."""
    status, chosen = doc["status"], doc["chosen_rank"]
    if status == "UNFINISHED":
        return "Not decided yet: the study is unfinished."
    if status == "DESCRIPTIVE":
        return "No verdict was asked for."
    if status == "INSUFFICIENT" and nothing_learned(doc):
        return "No rank has learned anything yet."
    if status == "INSUFFICIENT":
        return "No rank can be named yet."
    if len(doc["ranks"]) == 1:
        return f"Use rank {chosen}, the only one tried."
    if doc["edge"] == "low":
        return f"Use rank {chosen} or less."
    if doc["edge"] == "high":
        return f"Use rank {chosen} or more."
    return f"Use rank {chosen}. A smaller one may do." if _open_below(doc) else f"Use rank {chosen}."


def meaning(doc: Document) -> str:
    """Say what the status means here."""
    if doc["status"] == "UNFINISHED":
        return "Runs that the decision needs are still missing."
    if doc["status"] == "DESCRIPTIVE":
        return "The numbers describe what was run, and conclude nothing."
    chosen = doc["chosen_rank"]
    if chosen is None and nothing_learned(doc):
        return f"No run is better than {'an answer that reads no example' if has_head(doc) else start(doc)}."
    if chosen is None:
        return "The evidence is too thin to name a rank."
    if len(doc["ranks"]) == 1:
        return "Nothing else was tried, so there was nothing to decide."
    if _open_below(doc):
        return "The choice is good enough; a smaller rank might be too."
    if doc["status"] == "SAFE":
        what = "have learned nothing yet" if not _unstable(doc) else "trained unstably"
        return f"The choice is good enough, but ranks that {what} leave it unsettled."
    worse = "the next smaller rank loses more" if _next_smaller(doc, chosen) else "nothing smaller was tried"
    return f"The choice is good enough, and {worse}."


def reason(doc: Document) -> str:
    """Give the reason of the verdict with the margin in the score's own words."""
    if doc["margin"] is None:
        return str(doc["reason"])
    margin, said = amount(doc["margin"], metric_of(doc)), str(doc["reason"])
    for words in ("within", "more than"):
        said = said.replace(f"{words} {doc['margin']:g}", f"{words} {margin}")
    return _sentence(said)


def certainty(doc: Document) -> str:
    """Say in one or two sentences how sure the verdict is."""
    if doc["status"] == "UNFINISHED":
        done = sum(row["seeds"] for row in doc["ranks"].values())
        return f"{count(done)} of {count(_planned_cells(doc))} runs of the decision are complete." if done else ""
    if doc["status"] == "DESCRIPTIVE":
        return f"Seen on {count(doc['seeds'])} seeds × {count(doc['examples'])} examples; nothing was tested."
    based = f"{count(doc['seeds'])} seeds × {count(doc['examples'])} examples"
    chosen, reference = doc["chosen_rank"], doc["reference_rank"]
    if chosen is None and nothing_learned(doc):
        done, planned = sum(row["seeds"] for row in doc["ranks"].values()), _planned_cells(doc)
        stopped = f" The study stopped after {count(done)} of {count(planned)} runs of the decision."
        return f"{_doubt(doc)}{stopped if done < planned else ''}"
    if chosen is None and _all_unstable(doc):
        return f"{_doubt(doc)} Based on {based}."
    if reference is None:
        return reason(doc)
    if chosen is None:
        return f"{_doubt(doc)} Until more is known, keep to the reference, rank {reference}. Based on {based}."
    below = _below(doc, chosen)
    if len(doc["ranks"]) == 1:
        return f"There is no other rank to compare it with. Based on {based}."
    row = doc["ranks"][str(chosen)]
    trained = f"trained at learning rate {rate(row['learning_rate'])}" if row["learning_rate"] else ""
    if chosen == reference:
        which = f"rank {chosen}, {trained}" if trained else f"rank {chosen}"
        return f"No other rank beats {which}{f', and {below}' if below else ''} ({based})."
    average = f"T{trained[1:]}, it is on average" if trained else "On average it is"
    return (
        f"{average} {_compared(row['difference'], reference, doc)} and, with {confidence(doc['level'])} "
        f"confidence, {worst(row['lower'], doc)}; you accept a loss below {amount(doc['margin'], metric_of(doc))}."
        f"{f' {_sentence(below)}' if below else ''} Based on {based}."
    )


def _doubt(doc: Document) -> str:
    """Say why no rank is named: against the reference in the score's own words, else as the rule put it."""
    rank, other = doc["compared"] or (None, None)
    row = doc["ranks"].get(str(rank))
    if row is None or other != doc["reference_rank"] or row["lower"] is None:
        return reason(doc)
    margin = amount(doc["margin"], metric_of(doc))
    return (
        f"Rank {rank} may lie up to {amount(row['lower'], metric_of(doc))} below rank {other}, and you accept {margin}."
    )


def change(doc: Document) -> list[str]:
    """Say what would change the answer."""
    if doc["status"] == "UNFINISHED":
        return ["Run the same `rankexp sweep` again: finished runs are kept."]
    if doc["status"] == "DESCRIPTIVE":
        sentences = [
            "The same command without `decide.verdict=false` asks for a verdict; finished runs are not trained again."
        ]
    else:
        sentences = _change_insufficient(doc) if doc["chosen_rank"] is None else _change_chosen(doc)
    if unstable := _unstable(doc):
        sentences.append(f"Rank {joined(unstable)} trained unstably and cannot be chosen; a lower rate may cure it.")
    if unlearned := [rank for rank, row in doc["ranks"].items() if row["unlearned"]]:
        sentences.append(f"Rank {joined(unlearned)} learned nothing yet: {_learn_more(doc)}.")
    return sentences


def nothing_learned(doc: Document) -> bool:
    """Whether every rank has learned nothing yet."""
    return bool(doc["ranks"]) and all(row["unlearned"] for row in doc["ranks"].values())


def _unstable(doc: Document) -> list[str]:
    return [rank for rank, row in doc["ranks"].items() if row["unstable"] and not row["unlearned"]]


def _learn_more(doc: Document) -> str:
    """Say what cures a run that learned nothing, and how far it got."""
    cure = "raise `train.steps`, or the rates (`search.learning_rates`)"
    train, splits = doc["setup"]["train"], doc["setup"]["data"].get("splits", {})
    examples = splits.get("train", {}).get("examples", 0)
    if not examples:
        return cure
    epochs = train["steps"] * train["batch_size"] * train["accumulation"] / examples
    return f"{cure}; {count(train['steps'])} steps were {epochs:.2g} epochs"


def _is_blocked(doc: Document) -> bool:
    """Whether more runs would settle nothing: an unstable rank, or one that the screen left out, stands in the way."""
    if doc["reference_rank"] is None or nothing_learned(doc) or _all_unstable(doc):
        return False
    if doc["seeds"] < LEAST_SEEDS or doc["groups"] < LEAST_GROUPS:
        return False
    if doc["compared"] is None:
        return any(row["unstable"] for row in doc["ranks"].values()) or _LEFT_OUT in doc["reason"]
    low, other = doc["compared"]
    row = doc["ranks"].get(str(low))
    return other == doc["reference_rank"] and row is not None and low < other and _excluded(row, doc)


def _change_insufficient(doc: Document) -> list[str]:
    if _is_blocked(doc):  # what is said of unstable ranks is said of all verdicts
        left_out = "Decide on the ranks that the screen left out as well: `search=grid` does."
        return [left_out] if _LEFT_OUT in doc["reason"] else []
    seeds, examples = doc["needed_seeds"], doc["needed_examples"]
    options = [f"{count(seeds)} seeds"] if seeds and seeds > doc["seeds"] else []
    options += [f"{count(examples)} {_unit(doc)} to decide on"] if examples and examples > doc["groups"] else []
    sentences = []
    if options:
        sentences.append(f"{' or '.join(options)} would settle it with 80% probability if the ranks are truly equal.")
    elif doc["power"] is not None and doc["power"]["now"] >= doc["power"]["target"]:
        sentences.append(
            "The study is large enough for ranks that are truly equal, so the difference is probably close to the "
            "margin: accept a wider one, or keep to the reference."
        )
    elif doc["compared"] is not None:
        sentences.append("Neither seeds nor examples alone would settle it: add both, or accept a wider margin.")
    elif nothing_learned(doc):
        pass  # what cures that is said of every rank that has learned nothing
    elif _all_unstable(doc):
        sentences.append("Find a setting that trains stably: lower rates, more warm-up, clipped gradients.")
    elif doc["seeds"] < LEAST_SEEDS:
        sentences.append("Add seeds: `decide.seeds=5` is the default." if doc["setup"] else "Add seeds.")
    elif doc["groups"] < LEAST_GROUPS:
        sentences.append(f"Add {_unit(doc)} to decide on: {LEAST_GROUPS} are needed, and thousands are better.")
    else:
        sentences.append("Look at the scores: runs with other seeds do not give the very same numbers.")
    if (shares := doc["variance_shares"]) and shares["seeds"] is not None:
        seeds, examples, both = (percent(shares[name]) for name in ("seeds", "examples", "residual"))
        rates = f"; {percent(shares['rates'])} is what is not known of the best rates" if shares.get("rates") else ""
        noise = f"{seeds} from seeds, {examples} from examples and {both} from both together"
        sentences.append(f"The noise is {noise}{rates}.")
    return sentences


def _change_chosen(doc: Document) -> list[str]:
    chosen, reference, kind = doc["chosen_rank"], doc["reference_rank"], metric_of(doc)
    sentences = []
    smaller = _next_smaller(doc, chosen)
    if smaller and smaller["lower"] is not None and smaller["lower"] < 0:
        sentences.append(f"Rank {smaller['rank']} would do if you can lose up to {amount(smaller['lower'], kind)}.")
    row = doc["ranks"][str(chosen)]
    if chosen != reference and row["lower"] is not None:
        limit = amount(min(row["lower"], 0.0), kind)
        sentences.append(f"With a margin below {limit}, rank {chosen} would not do.")
    if doc["edge"] == "low":
        sentences.append(f"No smaller rank was tried: {_add(doc)} to see how low you can go.")
    if doc["edge"] == "high":
        sentences.append(f"No larger rank was tried: {_add(doc)} to see whether more is better still.")
    return sentences


def _unit(doc: Document) -> str:
    return evidence_unit(doc["groups"], doc["examples"])


def _all_unstable(doc: Document) -> bool:
    return bool(doc["ranks"]) and all(row["unstable"] for row in doc["ranks"].values())


def _add(doc: Document) -> str:
    return "add one to search.ranks" if doc["setup"] else "add one"


def _open_below(doc: Document) -> bool:
    smaller = _next_smaller(doc, doc["chosen_rank"])
    return smaller is not None and not _excluded(smaller, doc)


def _excluded(row: Document, doc: Document) -> bool:
    """Whether a rank is shown to lose more than the margin."""
    return row["upper"] is not None and bool(row["upper"] < -doc["margin"])


def _below(doc: Document, chosen: int) -> str:
    smaller = _next_smaller(doc, chosen)
    if smaller is None:
        return ""
    rank, low, high = f"rank {smaller['rank']}", smaller["lower"], smaller["upper"]
    if low is None or high is None:
        return f"{rank} is not ruled out"
    kind = metric_of(doc)
    if _excluded(smaller, doc):
        return f"{rank} is worse by at least {amount(high, kind)}"
    if high < 0:
        return f"{rank} is worse by {amount(high, kind).partition(' ')[0]} to {amount(low, kind)}"
    return f"{rank} is not ruled out, {amount(low, kind)} below to {amount(high, kind).partition(' ')[0]} above"


def _next_smaller(doc: Document, chosen: int) -> Document | None:
    below = [row for row in doc["ranks"].values() if row["rank"] < chosen and not row["unstable"]]
    return below[-1] if below else None


def _compared(value: float, reference: int, doc: Document) -> str:
    size = amount(value, metric_of(doc))
    if size.split(" ")[0] == "0":
        return f"level with rank {reference}"
    return f"{size} {'above' if value > 0 else 'below'} rank {reference}"


def _planned_cells(doc: Document) -> int:
    return len(doc["ranks"]) * int(doc["looks"]["sizes"][doc["looks"]["used"] - 1])


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def joined(items: list[str]) -> str:
    """Write a list as a reader expects it: a, b and c."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
