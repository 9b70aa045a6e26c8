"""Names of classes, from the values that people and programs write for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from rankexp.data.table import Note, TaskError, Value, brief, is_missing, noted

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_INTEGER = re.compile(r"[-+]?\d+")
_WHOLE = re.compile(r"([-+]?)(\d*)\.0*")
"""A whole number as a column of floats holds it: ``1.0``."""
_NONE = {"nan", "<na>", "nat"}
"""What pandas and NumPy write where there is no value."""
_UNCERTAIN = {"none", "null", "na", "n/a", "#n/a"}
"""May stand for no value, and may be names of classes."""
_TRUTH = {"true": "1", "false": "0"}

Place = Callable[[int], str]


def label_names(values: Sequence[Value], place: Place) -> tuple[list[str], tuple[Note, ...]]:
    """Return the name of each row's class, and what is to be said about them.

    ``1``, ``1.0`` and true are one class; ``1`` and ``01`` are two. ``True`` as text is a name, unless other rows have
    numbers.

    Args:
        values: Numbers, truth values or text, as they were read.
        place: Returns where a row stands.

    Raises:
        TaskError: A row has no label, or one that is no whole number where others have numbers.
    """
    names = [_name(value, place, index) for index, value in enumerate(values)]
    names = _with_one_spelling(names)
    _check_numbers(names, place)
    return names, (*_uncertain(names, place), *_same_numbers(names, place))


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Sort names of classes: numbers by their value, then other names; the same whatever order they come in.

    >>> in_order({"10", "9", "b", "1", "01"})
    ('01', '1', '9', '10', 'b')
    """
    return tuple(sorted(labels, key=_natural))


def _natural(label: str) -> tuple[int, Decimal, str]:
    return (0, Decimal(label), label) if _is_decimal(label) else (1, Decimal(0), label)


def _is_decimal(label: str) -> bool:
    return label.removeprefix("-").isdecimal()


def _name(value: Value, place: Place, index: int) -> str:
    if isinstance(value, str) and (name := value.strip()) and name.lower() not in _NONE and "\0" not in name:
        return _whole(name)
    if isinstance(value, bool | int):
        return str(int(value))
    if isinstance(value, float) and not is_missing(value) and value.is_integer():
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return _whole(f"{value:f}")
    raise TaskError(f"{place(index)} has label {brief(value)}; a whole number or a name is needed.")


def _whole(name: str) -> str:
    r"""Write ``1.0`` as ``1``.

    >>> _whole("1.0"), _whole("-0.0"), _whole("+01."), _whole("01"), _whole("1.5")
    ('1', '0', '1', '01', '1.5')
    """
    found = _WHOLE.fullmatch(name)
    if not found or len(name) < 2 or not any(map(str.isdecimal, name)):
        return name
    digits = found[2].lstrip("0") or "0"
    return f"-{digits}" if found[1] == "-" and digits != "0" else digits


def _with_one_spelling(names: list[str]) -> list[str]:
    """Read truth values as 1 and 0 beside those numbers, and in one spelling where there are several."""
    truths = {name for name in names if name.lower() in _TRUTH}
    others = set(names) - truths
    if truths and others and others <= {"0", "1"}:
        return [_TRUTH.get(name.lower(), name) for name in names]
    if len({name.lower() for name in truths}) < len(truths):
        return [name.title() if name in truths else name for name in names]
    return names


def _check_numbers(names: Sequence[str], place: Place) -> None:
    numeric = {name: bool(_NUMBER.fullmatch(name)) for name in set(names)}
    for index, name in enumerate(names):
        if numeric[name] and not name.lstrip("+-").isdigit():
            raise TaskError(f"{place(index)} has label {brief(name)}; a whole number or a name is needed.")
        if not numeric[name] and any(numeric.values()):
            raise TaskError(f"{place(index)} has label {brief(name)}, but other rows have numbers.")


def _uncertain(names: Sequence[str], place: Place) -> tuple[Note, ...]:
    found = [index for index, name in enumerate(names) if name.lower() in _UNCERTAIN]
    what = f"with label {names[found[0]]!r}, which is read as the name of a class" if found else ""
    return noted(what, [place(index) for index in found])


def _same_numbers(names: Sequence[str], place: Place) -> tuple[Note, ...]:
    """Note names that are other spellings of a number that has a plainer one."""
    plain: dict[Decimal, str] = {}
    numbers = {name for name in names if _INTEGER.fullmatch(name)}
    for name in sorted(numbers, key=lambda name: (len(name), name)):
        plain.setdefault(Decimal(name), name)
    others = numbers - set(plain.values())
    found = [index for index, name in enumerate(names) if name in others]
    if not found:
        return ()
    other = names[found[0]]
    what = f"with a label like {brief(other)}, which is another class than {brief(plain[Decimal(other)])}"
    return noted(what, [place(index) for index in found])
