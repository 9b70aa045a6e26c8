"""Find the linear layers of a model, and swap LoRA layers in and out in place."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Required, TypedDict, Unpack

import torch
from torch import nn

from rankexp.lora.layer import LoRALinear, check_rank, features, lora_layers
from rankexp.lora.merge import unmerge
from rankexp.ranks import Scaling, scaling_factor

# Their forward reads the weights of these children and never calls them, so an update there would do nothing.
_READ_CHILDREN = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def linear_modules(model: nn.Module, *, exclude: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Return name -> (in, out) of the layers that LoRA can adapt, in the model's order.

    A layer that already carries an update appears under its own name. Children of torch's fused attention and
    encoder layers are left out: those read the weights and never call the layer.

    Args:
        model: The model to look through.
        exclude: Modules to leave out with all that they contain, by name or by the end of a name.

    Examples:
        >>> linear_modules(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), exclude=["2"])
        {'0': (3, 5)}
    """
    modules = dict(model.named_modules())
    shapes = {}
    for name, module in modules.items():
        shape = features(module)
        parent = modules[name.rpartition(".")[0]]
        hidden = isinstance(parent, (LoRALinear, *_READ_CHILDREN))
        if name and shape and not hidden and not any(contains(e, name) for e in exclude):
            shapes[name] = shape
    return shapes


def contains(module: str, name: str) -> bool:
    """Tell whether the module ``name`` is ``module`` or lies inside it; ``module`` may be the end of a name.

    Examples:
        >>> contains("classifier", "classifier.dense"), contains("classifier", "pre_classifier")
        (True, False)
    """
    return f".{module}." in f".{name}."


def target_shapes(model: nn.Module, targets: str | Sequence[str], head: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return name -> (in, out) of the layers that ``targets`` selects outside the head, in the model's order.

    Args:
        model: The model to look through.
        targets: ``"all-linear"``, or names as in PEFT's ``target_modules``: each selects the layers that have this
            name or end in a dot and it.
        head: Modules that are trained whole and therefore never adapted.

    Raises:
        ValueError: A target, or "all-linear", selects no layer; names the nearest that would.

    Examples:
        >>> model = nn.ModuleDict({"query": nn.Linear(4, 4), "key": nn.Linear(4, 4), "classifier": nn.Linear(4, 2)})
        >>> target_shapes(model, ["query"], head=["classifier"])
        {'query': (4, 4)}
    """
    shapes = linear_modules(model, exclude=head)
    if targets == "all-linear":
        if not shapes:
            raise ValueError(f"target 'all-linear' selects nothing: {type(model).__name__} has no linear layer")
        return shapes
    suffixes = [targets] if isinstance(targets, str) else list(targets)
    for suffix in suffixes:
        if not any(_matches(suffix, name) for name in shapes):
            raise ValueError(f"target {suffix!r} matches no linear layer outside the head{near_misses(suffix, shapes)}")
    return {name: shape for name, shape in shapes.items() if any(_matches(s, name) for s in suffixes)}


class LayerOptions(TypedDict, total=False):
    """How the LoRA layers of a model are made.

    Attributes:
        alpha: Numerator of the scale, for all layers or by module name.
        scaling: The rule for the scale.
        dropout: Probability of zeroing an input of an update.
        seed: The trial's seed.
        kind: Makes a layer from the arguments of :class:`~rankexp.lora.layer.LoRALinear`.
    """

    alpha: Required[float | Mapping[str, float]]
    scaling: Scaling
    dropout: float
    seed: Required[int]
    kind: Callable[..., LoRALinear]


def inject(model: nn.Module, rank_map: Mapping[str, int], **how: Unpack[LayerOptions]) -> list[str]:
    """Freeze the whole model and put a LoRA layer in the place of each layer of ``rank_map``.

    A layer's initial factors depend on ``seed``, its name and its shape alone: not on which other layers are
    adapted, nor on an order. Maps that differ in a layer's rank share the leading rows of its ``lora_A``.

    Args:
        model: The model to change in place; no layer is replaced when an error is raised.
        rank_map: Module name -> rank; rank 0 leaves the layer as it is, frozen.
        how: How each layer is made; see :class:`LayerOptions`.

    Returns:
        The names of the adapted layers, ordered.

    Raises:
        ValueError: A name is no linear layer of the model, a rank or alpha is out of range for its layer, or the
            model carries LoRA layers already.
    """
    layers = new_layers(model, rank_map, **how)
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, layer.train(layer.base.training))
    return list(layers)


def new_layers(
    model: nn.Module,
    rank_map: Mapping[str, int],
    *,
    alpha: float | Mapping[str, float],
    scaling: Scaling = "standard",
    dropout: float = 0.0,
    seed: int,
    kind: Callable[..., LoRALinear] = LoRALinear,
) -> dict[str, LoRALinear]:
    """Make the layers that :func:`inject` would put into the model, ordered by name, and leave the model as it is.

    The errors are those of :func:`inject`; the adapted layers are frozen.
    """
    return {
        name: kind(
            model.get_submodule(name),
            rank_map[name],
            _alpha_of(alpha, name),
            scaling=scaling,
            dropout=dropout,
            generator=module_generator(seed, name, shape),
        )
        for name, shape in _checked_shapes(model, rank_map, alpha, scaling).items()
    }


def eject(model: nn.Module) -> list[str]:
    """Put the original layers back, with their original weights, still frozen.

    Returns:
        The names of the layers that were adapted; empty if none was.
    """
    layers = lora_layers(model)
    if layers:
        unmerge(model)
    for name, layer in layers.items():
        model.set_submodule(name, layer.base)
    return list(layers)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return name -> parameter for the parameters that require gradients, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def module_generator(seed: int, name: str, shape: tuple[int, int]) -> torch.Generator:
    """Return the CPU generator that initialises the layer ``name`` of ``shape`` (in, out) in a trial with ``seed``.

    The rank is left out on purpose: candidates that share a seed share their random numbers, which makes their
    difference less noisy.

    Examples:
        >>> first, again = (module_generator(0, "query", (4, 4)) for _ in range(2))
        >>> first.initial_seed() == again.initial_seed() != module_generator(0, "key", (4, 4)).initial_seed()
        True
    """
    key = json.dumps(["lora", int(seed), name, *shape])
    digest = hashlib.sha256(key.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def near_misses(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean 'x' or 'y'?" for what resembles ``name`` in ``names`` or their ends, or "".

    Examples:
        >>> near_misses("querry", ["layer.0.query", "layer.0.dense"])
        "; did you mean 'query' or '0.query'?"
    """
    parts = [full.split(".") for full in names]
    ends = {".".join(part[i:]) for part in parts for i in range(len(part))}
    close = difflib.get_close_matches(name, sorted(ends), n=3)
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _matches(suffix: str, name: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")


def _alpha_of(alpha: float | Mapping[str, float], name: str) -> float:
    return alpha[name] if isinstance(alpha, Mapping) else alpha


def _checked_shapes(
    model: nn.Module, rank_map: Mapping[str, int], alpha: float | Mapping[str, float], scaling: Scaling
) -> dict[str, tuple[int, int]]:
    """Return the shapes of the layers to adapt, ordered by name, or refuse the map as a whole.

    The arguments and errors are those of :func:`inject`.
    """
    if lora_layers(model):
        raise ValueError(f"{type(model).__name__} carries LoRA layers already; eject them first")
    shapes = linear_modules(model)
    adapted = {}
    for name in sorted(rank_map):
        if name not in shapes:
            raise ValueError(f"rank map: {name!r} is no linear layer of the model{near_misses(name, shapes)}")
        if rank_map[name] == 0:
            continue
        adapted[name] = shapes[name]
        check_rank(rank_map[name], shapes[name], f"rank map: rank of {name!r}")
        if isinstance(alpha, Mapping) and name not in alpha:
            raise ValueError(f"alpha: no value for {name!r}")
        scaling_factor(rank_map[name], _alpha_of(alpha, name), scaling)
    return adapted
