"""A step that memory does not hold is taken by half of the trials, then by the rest, and one that fits nowhere fails."""

from types import SimpleNamespace

import pytest
import torch

from rankexp.training.out_of_memory import is_out_of_memory, on_out_of_memory, step_in_parts


class Counter:
    """Holds ``most`` trials at a time, and never those of ``too_large``."""

    def __init__(self, most, too_large=()):
        self.most, self.too_large, self.steps = most, too_large, []

    def step(self, slots):
        self.steps.append([slot.name for slot in slots])
        fits = len(slots) <= self.most and not {slot.name for slot in slots} & set(self.too_large)
        return None if fits else MemoryError()


def slots(names):
    failed = []
    return [SimpleNamespace(name=name, fail=lambda _, name=name: failed.append(name)) for name in names], failed


@pytest.mark.parametrize(("most", "steps", "size"), [
    (5, ["abcde"], 5),
    (2, ["abcde", "ab", "cd", "e"], 2),
    (1, ["abcde", "ab", "a", "b", "c", "d", "e"], 1),
])  # fmt: skip
def test_a_pack_is_halved_until_it_fits(most, steps, size):
    counter, (trials, failed) = Counter(most), slots("abcde")
    assert step_in_parts(trials, 5, counter.step) == size
    assert ["".join(step) for step in counter.steps] == steps
    assert failed == []


def test_a_trial_that_does_not_fit_alone_fails_and_the_others_go_on():
    counter, (trials, failed) = Counter(4, too_large="b"), slots("abcd")
    assert step_in_parts(trials, 4, counter.step) == 1
    assert failed == ["b"]
    assert [step for step in counter.steps if len(step) == 1] == [["a"], ["b"], ["c"], ["d"]]


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_a_lack_of_memory_raises_is_told_and_nothing_else_is(error):
    told = []
    with on_out_of_memory(told.append):
        raise error
    assert told == [error]
    assert error.__traceback__ is None  # which would keep what the step had computed
    with pytest.raises(RuntimeError, match="other"), on_out_of_memory(told.append):
        raise RuntimeError("other")
    assert not is_out_of_memory(ValueError("other"))
