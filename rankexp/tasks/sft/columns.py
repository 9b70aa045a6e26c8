"""Which columns hold what: conversations, instructions, questions, prompts with completions, or one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rankexp.data.table import Table, TaskError, brief
from rankexp.option_errors import near_miss

_KEYS_OF_TURNS = ("role", "content")
_SHOWN = 20


@dataclass(frozen=True)
class Kind:
    """A usual shape of a row.

    Attributes:
        name: What it is called in the record.
        says: What a person is told, after the names of the columns.
        needed: What it needs, each with the names by which it is recognised.
        optional: What it may have besides.
    """

    name: str
    says: str
    needed: Mapping[str, Sequence[str]]
    optional: Mapping[str, Sequence[str]]


_SYSTEM = {"system": ("system", "system_prompt")}
_TOOLS = {"tools": ("tools",)}

KINDS = (
    Kind("conversation", "conversations", {"messages": ("messages", "conversations")}, {**_SYSTEM, **_TOOLS}),
    Kind(
        "prompt_completion",
        "prompts with completions",
        {"prompt": ("prompt",), "completion": ("completion", "response")},
        {**_SYSTEM, **_TOOLS},
    ),
    Kind(
        "instruction",
        "instructions with answers",
        {"instruction": ("instruction",), "output": ("output", "response")},
        {"input": ("input", "context"), "history": ("history",), **_SYSTEM, **_TOOLS},
    ),
    Kind(
        "question_answer",
        "questions with answers",
        {"question": ("question",), "answer": ("answer", "response")},
        dict(_SYSTEM),
    ),
    Kind("text", "one text a row", {"text": ("text",)}, {}),
)
"""All shapes, the more telling ones first."""

_ALIASES = {
    "conversations": "messages",
    "query": "input",
    "role_tag": "role",
    "content_tag": "content",
    "from": "role",
    "value": "content",
    "system_prompt": "system",
}
"""Other words for what option ``columns`` names, from other programs."""

_SAME = ({"completion", "output", "answer", "response"}, {"prompt", "instruction", "question"})
"""Words for one thing in several shapes: other programs call an instruction a prompt, and an output a response."""


@dataclass(frozen=True)
class Layout:
    """What the columns of a table hold.

    Attributes:
        kind: Name of one of :data:`KINDS`.
        columns: Name of the column of each thing that is there.
        turn_keys: Names of role and content in a turn, where the user named them.
        unused: Columns that nothing is read from.
    """

    kind: str
    columns: Mapping[str, str]
    turn_keys: Mapping[str, str]
    unused: tuple[str, ...]

    def sentence(self) -> str:
        """Say in one line what was found."""
        kind = next(kind for kind in KINDS if kind.name == self.kind)
        named = [f"{brief(column)} ({thing})" if column != thing else brief(column) for thing, column in self._shown()]
        unused = f"; not used: {', '.join(map(brief, self.unused[:_SHOWN]))}" if self.unused else ""
        more = ", …" if len(self.unused) > _SHOWN else ""
        return f"read as {kind.says}: {', '.join(named)}{unused}{more}"

    def _shown(self) -> Sequence[tuple[str, str]]:
        return list(self.columns.items())


def recognise(table: Table, named: Mapping[str, str], others: Sequence[str] = ()) -> Layout:
    """Tell what the columns of a table hold.

    Args:
        table: The table.
        named: Columns that the user named, by what they hold; also the keys of a turn, as ``role`` and ``content``.
        others: Columns that something else is read from, such as groups.

    Raises:
        TaskError: The columns fit no shape, or a named one is not there.
    """
    wanted = _with_usual_words(named)
    turn_keys = {key: column for key, column in wanted.items() if key in _KEYS_OF_TURNS}
    columns = {key: column for key, column in wanted.items() if key not in _KEYS_OF_TURNS}
    present = {name.strip(): name for name in table.names}
    for thing, column in columns.items():
        if column.strip() not in present:
            raise _no_column(table, thing, column)
    for kind in _fitting(columns):
        found = _columns(kind, columns, present)
        if found is not None:
            used = {*found.values(), *(other.strip() for other in others)}
            return Layout(kind.name, found, turn_keys, tuple(name for name in table.names if name.strip() not in used))
    raise _not_recognised(table, columns)


def _with_usual_words(named: Mapping[str, str]) -> dict[str, str]:
    known = {*_KEYS_OF_TURNS, "response", *(thing for kind in KINDS for thing in (*kind.needed, *kind.optional))}
    wanted: dict[str, str] = {}
    for given, column in named.items():
        thing = _ALIASES.get(given, given)
        if thing not in known:
            listed = ", ".join(sorted(known))
            near = near_miss(given, sorted({*known, *_ALIASES}))
            more = near if near != "." else f"; it may name {listed}."
            raise TaskError(f"option 'task.columns' names {given!r}, which no shape of a row has{more}")
        if thing in wanted:
            raise TaskError(f"option 'task.columns' names {thing!r} twice, as {wanted[thing]!r} and {column!r}.")
        wanted[thing] = column
    return wanted


def _fitting(columns: Mapping[str, str]) -> list[Kind]:
    """Return the shapes that have all that the user named, those first that call it by the same words."""
    fitting = [kind for kind in KINDS if len({_in_kind(kind, thing) for thing in columns} - {None}) == len(columns)]
    return sorted(fitting, key=lambda kind: -sum(_in_kind(kind, thing) == thing for thing in columns))


def _in_kind(kind: Kind, thing: str) -> str | None:
    """Return a shape's own word for what the user named, or None where it has no such thing."""
    if thing in kind.needed or thing in kind.optional:
        return thing
    words: set[str] = next((same for same in _SAME if thing in same), set())
    return next((own for own in kind.needed if own in words), None)


def _columns(kind: Kind, named: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str] | None:
    """Find the columns of a shape, or None where it lacks one that it needs."""
    own = {_in_kind(kind, thing): column.strip() for thing, column in named.items()}
    taken = set(own.values())
    found: dict[str, str] = {}
    for thing, usual in (*kind.needed.items(), *kind.optional.items()):
        column = own.get(thing) or next((word for word in usual if word in present and word not in taken), None)
        if column is not None:
            found[thing] = column
            taken.add(column)
        elif thing in kind.needed:
            return None
    return found


def _no_column(table: Table, thing: str, column: str) -> TaskError:
    listed = ", ".join(map(brief, table.names[:_SHOWN])) + (", …" if len(table.names) > _SHOWN else "")
    return TaskError(
        f"option 'task.columns.{thing}' is {brief(column)}, but {table.header or table.name} has no such column; it has"
        f" {listed or 'none'}{near_miss(column, table.names)}"
    )


def _not_recognised(table: Table, named: Mapping[str, str]) -> TaskError:
    listed = ", ".join(map(brief, table.names[:_SHOWN])) + (", …" if len(table.names) > _SHOWN else "")
    shapes = "; ".join(" and ".join(kind.needed) for kind in KINDS)
    with_named = f" with {', '.join(map(brief, named))} named by option 'task.columns'" if named else ""
    return TaskError(
        f"{table.name} has the columns {listed or 'none'}{with_named}, and is none of: {shapes}; option 'task.columns'"
        " says which column is which, such as columns={prompt: NAME, completion: NAME}."
    )
