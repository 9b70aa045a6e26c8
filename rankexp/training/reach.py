"""What of a model the adapters reach: which weights LoRA updates, and which matrices it leaves as they are.

LoRA goes around linear layers, and convolutions where it is told to. The experts of a mixture are often none: they are
bare three-dimensional parameters, which "all-linear" does not see, in PEFT either.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from rankexp.lora.inject import WORDS, contains, linear_modules, target_shapes
from rankexp.models.loading import output_layer
from rankexp.models.quantised import count_numbers, count_parameters


@dataclass(frozen=True)
class Kind:
    """Weights of one kind: those whose names differ in numbers only.

    Attributes:
        name: Their name without the numbers.
        count: How many there are.
        share: Their share of the parameters of the base.
    """

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Reach:
    """What adapters reach of a base, and what not.

    Attributes:
        share: Share of the base's parameters that lie in adapted layers.
        adapted: Kinds of adapted layers.
        linear: Kinds of linear layers that are not adapted.
        bare: Kinds of matrices that lie in no layer that LoRA can adapt, such as the experts of a mixture.
    """

    share: float
    adapted: tuple[Kind, ...]
    linear: tuple[Kind, ...]
    bare: tuple[Kind, ...]

    def card(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {name: value if name == "share" else list(value) for name, value in asdict(self).items()}

    @property
    def sentences(self) -> tuple[str, ...]:
        """What a person should know before training: what is left out that one would think is adapted."""
        layers = sum(kind.count for kind in self.adapted)
        begun = f"LoRA adapts {layers} layers, {self.share:.0%} of the base's parameters"
        left = [f"{kind.count} x {kind.name} ({kind.share:.0%})" for kind in (*self.bare, *self.linear)]
        return (f"{begun}; left as they are: {', '.join(left)}",) if left else ()


def target_layers(model: Any, targets: str | list[str], saved: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return name -> (in, out) of the layers that ``targets`` selects; a word for all leaves out those of one output.

    Args:
        model: A bare model of transformers.
        targets: "all-linear", "all-layers", or names as :func:`rankexp.lora.inject.target_shapes` takes them.
        saved: Names of the modules that each adapter brings whole.

    Raises:
        ValueError: A target selects nothing.
    """
    shapes = target_shapes(model, targets, (*saved, *output_layer(model)))
    wide = {name: shape for name, shape in shapes.items() if min(shape) > 1}
    return wide if wide and targets in WORDS else shapes


def reach_of(model: nn.Module, adapted: Mapping[str, object], saved: Sequence[str]) -> Reach:
    """Find what adapters of some layers reach of a model.

    Args:
        model: A bare model of transformers.
        adapted: Names of the adapted layers.
        saved: Names of the modules that each adapter brings whole.
    """
    linear = {*linear_modules(model), *adapted}
    whole = {
        name: count_numbers(p) for name, p in model.named_parameters() if not any(contains(s, name) for s in saved)
    }
    total = max(1, sum(whole.values()))
    sizes = {name: count_parameters(model.get_submodule(name)) for name in linear}
    left = [name for name in sizes if name not in adapted and not any(contains(s, name) for s in saved)]
    bare = {name: size for name, size in _bare(model, linear) if name in whole}
    return Reach(
        sum(sizes[name] for name in adapted) / total,
        kinds_of({name: sizes[name] for name in adapted}, total),
        kinds_of({name: sizes[name] for name in left}, total),
        kinds_of(bare, total),
    )


def _bare(model: nn.Module, linear: set[str]) -> Iterator[tuple[str, int]]:
    """Yield matrices and stacks of them that are in no linear layer, no table and no convolution."""
    for name, module in model.named_modules():
        known = isinstance(module, (nn.Embedding, nn.modules.conv._ConvNd)) or name in linear
        for key, parameter in module.named_parameters(recurse=False):
            if not known and sum(size > 1 for size in parameter.shape) > 1 and not key.endswith("bias"):
                yield f"{name}.{key}" if name else key, parameter.numel()


def kind_name(name: str) -> str:
    """Return a module's name without its numbers.

    >>> kind_name("model.layers.11.self_attn.q_proj")
    'model.layers.self_attn.q_proj'
    """
    return re.sub(r"(^|\.)\d+(?=\.|$)", "", name).strip(".")


def kinds_of(sizes: Mapping[str, int], total: int) -> tuple[Kind, ...]:
    """Put weights together whose names differ in numbers only.

    Args:
        sizes: Parameters by name.
        total: Parameters of the base.

    >>> kinds_of({"layer.0.q": 30, "layer.1.q": 30}, 100)
    (Kind(name='layer.q', count=2, share=0.6),)
    """
    counts, shares = Counter[str](), Counter[str]()
    for name, size in sizes.items():
        kind = kind_name(name)
        counts[kind] += 1
        shares[kind] += size
    return tuple(Kind(kind, count, shares[kind] / total) for kind, count in counts.items())
