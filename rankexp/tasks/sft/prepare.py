"""From a data set to tokens in four splits, with the account of every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic.dataclasses import dataclass as checked

from rankexp.data.folders import Part
from rankexp.data.sources import Source, read_source
from rankexp.data.splits import SPLITS
from rankexp.data.table import TaskError
from rankexp.options import CHECKED
from rankexp.safety.printable import printable
from rankexp.tasks.examples import Targets
from rankexp.tasks.sft.columns import Layout, recognise
from rankexp.tasks.sft.dealing import Dealt, deal_rows
from rankexp.tasks.sft.encode import Encoded, Encoder
from rankexp.tasks.sft.prompts import PROMPTED, stops_of, with_prompts
from rankexp.tasks.sft.rows import Conversation, SftRow
from rankexp.tasks.sft.rules import RULES, Refused, RowError, left_out
from rankexp.tasks.sft.shapes import Form, Parsed, has_turns, resolved_form, rows_of
from rankexp.tasks.sft.summary import Measured, SftSummary, summarise_sft
from rankexp.tasks.sft.templates import no_template

Say = Callable[[str], None]


@checked(frozen=True, config=CHECKED, kw_only=True)
class Asked:
    """Where rows are and what their columns hold.

    Attributes:
        path: A file in a format that :mod:`rankexp.data.readers` reads, a folder of such files or one that ``datasets``
            saved, or an id on the hub.
        columns: Names of columns by what they hold, such as ``{prompt: frage, completion: antwort}``, where they have
            other names than the usual ones.
        form: How rows become text: ``chat``, ``plain``, ``alpaca``, or ``auto`` for what suits the columns.
        group: Column of what a row belongs with, such as a document; rows of one group are in one split.
        split: Column that puts each row into train, tune, decide or test; null deals them by ``sizes``.
        subset: Which of several data sets in one repository.
        source_split: Which of the data set's own splits are read, joined by ``+``.
        revision: Which version of a data set on the hub.
    """

    path: str
    columns: dict[str, str] = field(default_factory=dict)
    form: Form = "auto"
    group: str | None = None
    split: str | None = None
    subset: str | None = None
    source_split: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class SftData:
    """Examples in ``train``, ``tune``, ``decide`` and ``test``, what became of every row, and what ends an answer."""

    splits: Mapping[str, Targets]
    summary: SftSummary
    stops: tuple[int, ...]


@dataclass(frozen=True)
class Reading:
    """Rows as they were read.

    Attributes:
        rows: Rows that can be used, whatever the tokenizer.
        refused: All others.
    """

    rows: tuple[SftRow, ...]
    refused: tuple[Refused, ...]


def prepare(
    reading: Reading,
    encoder: Encoder,
    sizes: Mapping[str, float],
    seed: int,
    max_length: int,
    say: Say,
    *,
    prompts: bool = False,
) -> SftData:
    """Split rows and make tokens of them.

    Rows are dealt before they become tokens, so that each model has the same rows in each split, but for those that
    its own tokenizer or template refuses.

    Args:
        reading: The rows.
        encoder: Makes tokens of rows.
        sizes: Examples of each split; a number below 1 is a share of all rows.
        seed: Decides which rows go to which split.
        max_length: Longer rows are cut to this many tokens.
        say: Is told what was found, and what became of the rows.
        prompts: Whether a model is going to be asked for the answers that it is scored on.

    Raises:
        TaskError: The data cannot be used.
    """
    dealt = _dealt(reading.rows, encoder, sizes, seed, say)
    refused = [*reading.refused, *dealt.refused]
    used, kept = list[Measured](), list[SftRow]()
    splits: dict[str, Targets] = {}
    stops: tuple[int, ...] = ()
    for name in SPLITS:
        rows, encoded, without = encode_rows(dealt.splits[name], encoder, max_length)
        refused += without
        _check_filled(name, rows, dealt.splits[name], without)
        used += [Measured(row.place, row.content.turns, one) for row, one in zip(rows, encoded, strict=True)]
        kept += rows
        splits[name] = _split(rows, encoded, dealt.groups)
        if name == "train":
            stops = stops_of(encoder.tokenizer, encoded)
        if prompts and name in PROMPTED:
            splits[name] = with_prompts(splits[name], encoded, encoder.tokenizer, stops)
    _check_groups(splits["decide"], dealt.splits["decide"])
    summary = summarise_sft(len(reading.rows) + len(reading.refused), used, refused, dealt.same_prompt(kept))
    for sentence in summary.sentences():
        say(sentence)
    if "not_shown" in summary.left_out:
        say("option 'task.chat_template' may name a template that shows all of them, such as chatml")
    return SftData(splits, summary, stops)


def _dealt(rows: Sequence[SftRow], encoder: Encoder, sizes: Mapping[str, float], seed: int, say: Say) -> Dealt:
    talks = any(isinstance(row.content, Conversation) for row in rows)
    if talks and encoder.chat is None:
        raise no_template()
    dealt = deal_rows(rows, sizes, seed)
    if dealt.by_system:
        say("most rows have the same words of a user, so of those the system prompt counts as part of what a row asks")
    say(f"tokenising {sum(map(len, dealt.splits.values())):,} rows")
    if talks and encoder.chat is not None and encoder.chat.has_clock:
        say("the chat template shows the day, which is always 26 July 2024 here")
    return dealt


def read_rows(asked: Asked, say: Say, *, has_template: bool) -> Reading:
    """Read all rows of a data set.

    Args:
        asked: Where it is and what its columns hold.
        say: Is told what was found.
        has_template: Whether there is a chat template.

    Raises:
        TaskError: It cannot be read, or none of its rows can be used.
    """
    source = read_source(asked.path, say, subset=asked.subset, split=asked.source_split, revision=asked.revision)
    parts = [part for part in source.parts if len(part.table)]
    if not parts:
        raise TaskError(f"{source.parts[0].table.name} has no rows.")
    layouts = _layouts(asked, parts)
    turns = any(has_turns(part.table, layout) for part, layout in zip(parts, layouts, strict=True))
    kind = "conversation" if turns else layouts[0].kind
    form = resolved_form(asked.form, kind, has_template=has_template)
    say(layouts[0].sentence() + _form_words(form, kind))
    parsed = [_parsed(asked, source, part, layout, form) for part, layout in zip(parts, layouts, strict=True)]
    for note in (
        *(note for part in parts for note in part.table.notes),
        *(note for one in parsed for note in one.notes),
    ):
        say(note.sentence())
    rows = tuple(row for one in parsed for row in one.rows)
    refused = tuple(row for one in parsed for row in one.refused)
    if not rows:
        raise TaskError(f"no row can be used: {_reasons(refused)}.")
    return Reading(rows, refused)


def whole(path: str, encoder: Encoder, max_length: int, train: Targets, say: Say) -> Targets:
    """Read a data set whose rows stay together, to see what training does to its loss.

    Args:
        path: Where it is.
        encoder: Makes tokens of rows.
        max_length: Longer rows are cut to this many tokens.
        train: What is trained on; rows that are in it too are counted.
        say: Is told what was found, and how many rows are left out.

    Raises:
        TaskError: It cannot be read, or no row of it can be used.
    """
    say(f"to see what is forgotten, {printable(path)} is read as well:")
    reading = read_rows(Asked(path=path), say, has_template=encoder.chat is not None)
    rows, encoded, without = encode_rows(reading.rows, encoder, max_length)
    refused = (*reading.refused, *without)
    if not rows:
        raise TaskError(f"no row of {printable(path)} can be used: {_reasons(refused)}.")
    said = f"; left out are {_reasons(refused)}" if refused else ""
    cut = sum(row.length > max_length for row in encoded)
    say(f"{len(rows):,} rows of it are scored{said}{f'; {cut:,} are cut at the end' if cut else ''}")
    learned = set() if train.content_hashes is None else set(train.content_hashes.tolist())
    if common := sum(row.text_hash in learned for row in rows):
        say(f"warning: {common:,} of them are trained on too, and so say nothing of what is forgotten")
    return _split(rows, encoded, {row.example_id: row.example_id for row in rows})


def encode_rows(
    rows: Sequence[SftRow], encoder: Encoder, max_length: int
) -> tuple[list[SftRow], list[Encoded], list[Refused]]:
    """Make tokens of rows.

    Args:
        rows: The rows.
        encoder: Makes tokens of a row.
        max_length: Longer rows are cut to this many tokens.

    Returns:
        The rows that have tokens, their tokens, and the rows that are left out.
    """
    kept, encoded, refused = [], [], []
    for row in rows:
        try:
            encoded.append(encoder.encode(row.content).cut(max_length))
            kept.append(row)
        except RowError as error:
            refused.append(Refused(error.rule, row.place, error.detail))
        except RecursionError:
            refused.append(Refused("too_deep", row.place))
    return kept, encoded, refused


def _layouts(asked: Asked, parts: Sequence[Part]) -> list[Layout]:
    others = [column for column in (asked.group, asked.split) if column]
    layouts = [recognise(part.table, asked.columns, others) for part in parts]
    for layout, part in zip(layouts, parts, strict=True):
        if layout.kind != layouts[0].kind:
            raise TaskError(
                f"{part.table.name} is {layout.sentence()}, but {parts[0].table.name} is {layouts[0].sentence()};"
                " option 'task.columns' says which columns to use."
            )
    return layouts


def _form_words(form: Form, kind: str) -> str:
    words = {
        "chat": "by the chat template",
        "plain": "as text with an end token",
        "alpaca": "by the prompt of Alpaca with an end token",
    }
    return f"; written {words[form]}" if kind != "conversation" else ""


def _parsed(asked: Asked, source: Source, part: Part, layout: Layout, form: Form) -> Parsed:
    prefix = f"{printable(part.name)}:" if len(source.parts) > 1 else ""
    given = part.split if source.given and not asked.split else None
    return rows_of(part.table, layout, form, group=asked.group, split=asked.split, given=given, prefix=prefix)


def _reasons(refused: Sequence[Refused]) -> str:
    return "; ".join(f"{found.rows:,} {RULES[rule]}, first {found.first}" for rule, found in left_out(refused).items())


def _check_filled(name: str, kept: Sequence[SftRow], dealt: Sequence[SftRow], refused: Sequence[Refused]) -> None:
    if not dealt:
        raise TaskError(f"split {name!r} is empty; each of {', '.join(SPLITS)} needs examples.")
    if not kept:
        raise TaskError(f"split {name!r} is empty: {_reasons(refused)}.")


def _check_groups(decide: Targets, rows: Sequence[SftRow]) -> None:
    if len(set(decide.group_ids.tolist())) < 2:
        raise TaskError(
            f"split 'decide' has one group only, that of {rows[0].place}; at least 2 are needed to tell chance from"
            " effect."
        )


def _split(rows: Sequence[SftRow], encoded: Sequence[Encoded], groups: Mapping[str, str]) -> Targets:
    return Targets(
        np.array([row.example_id for row in rows]),
        np.array([groups[row.example_id] for row in rows]),
        tuple(one.tokens for one in encoded),
        tuple(one.targets for one in encoded),
        content_hashes=np.array([row.text_hash for row in rows]),
    )
