"""Find the layers of a model that LoRA can go around, and swap LoRA layers in and out in place."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Required, TypedDict, Unpack

import torch
from torch import nn

from rankexp.lora.kinds import kind_of
from rankexp.lora.layer import LoRALayer, check_rank, features, groups_of, lora_layers
from rankexp.lora.merge import unmerge
from rankexp.lora.tokens import TrainedLogits, TrainedRows
from rankexp.ranks import Scaling, scaling_factor

ALL_LINEAR, ALL_LAYERS = WORDS = ("all-linear", "all-layers")
"""Words of ``target_modules``: PEFT's own for all linear layers, and one for convolutions too."""

_AROUND = (LoRALayer, TrainedRows, TrainedLogits)
# Their forward reads the weights of these children and never calls them, so an update there would do nothing.
_READ_CHILDREN = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def adaptable_layers(model: nn.Module, *, exclude: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Return name -> (in, out) of the layers that LoRA can adapt, whatever their kind, in the model's order.

    A layer that already carries an update appears under its own name. Children of torch's fused attention and
    encoder layers are left out: those read the weights and never call the layer. So is what PEFT's LoRA cannot go
    around, and a layer that stands in several places of the model, only one of which PEFT would adapt.

    Args:
        model: The model to look through.
        exclude: Modules to leave out with all that they contain, by name or by the end of a name.
    """
    found, places = _candidates(model, exclude), _places(model)
    shapes = {name: features(module) for name, module in found.items() if not _refused(module, places)}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def layer_names(model: nn.Module, *, exclude: Sequence[str] = ()) -> list[str]:
    """Return the names of all layers of a kind that LoRA can go around, those among them that it cannot included."""
    return list(_candidates(model, exclude))


def linear_modules(model: nn.Module, *, exclude: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Return what :func:`adaptable_layers` has of linear layers.

    Examples:
        >>> linear_modules(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), exclude=["2"])
        {'0': (3, 5)}
    """
    return _selected(model, ALL_LINEAR, exclude)


def _selected(model: nn.Module, word: str, exclude: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return what a word selects; nothing that has groups of outputs, for which few ranks are possible."""
    shapes = adaptable_layers(model, exclude=exclude)
    layers = {name: _frozen(model.get_submodule(name)) for name in shapes}
    kinds = {name: kind_of(layer) for name, layer in layers.items()}
    wanted = {name for name, kind in kinds.items() if kind and word in kind.words and kind.groups(layers[name]) == 1}
    return {name: shape for name, shape in shapes.items() if name in wanted}


def _candidates(model: nn.Module, exclude: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of a kind that LoRA can go around, and that are called by a model, by name."""
    modules = dict(model.named_modules())
    found = {}
    for name, module in modules.items():
        inside = isinstance(modules[name.rpartition(".")[0]], (*_AROUND, *_READ_CHILDREN))
        if name and kind_of(_frozen(module)) and not inside and not any(contains(e, name) for e in exclude):
            found[name] = module
    return found


def _frozen(module: nn.Module) -> nn.Module:
    return module.base if isinstance(module, LoRALayer) else module


def _refused(module: nn.Module, places: Mapping[int, Sequence[str]]) -> str | None:
    """Say why a layer is not to be adapted; None where it can be."""
    kind = kind_of(_frozen(module))
    if kind is not None and (why := kind.refused(_frozen(module))):
        return why
    names = places[id(module)]
    return f"it stands in several places of the model, as {' and '.join(names)}" if len(names) > 1 else None


def _places(model: nn.Module) -> dict[int, list[str]]:
    """Return all names of each module, which may have several."""
    found: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        found.setdefault(id(module), []).append(name)
    return found


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
        targets: ``"all-linear"``, ``"all-layers"``, or names as in PEFT's ``target_modules``: each selects the layers
            that have this name or end in a dot and it.
        head: Modules that are trained whole and therefore never adapted.

    Raises:
        ValueError: A target selects no layer, and the nearest that would are named; or one that cannot be adapted.

    Examples:
        >>> model = nn.ModuleDict({"query": nn.Linear(4, 4), "key": nn.Linear(4, 4), "classifier": nn.Linear(4, 2)})
        >>> target_shapes(model, ["query"], head=["classifier"])
        {'query': (4, 4)}
    """
    if targets in WORDS:
        return _of_word(model, str(targets), head)
    suffixes = [targets] if isinstance(targets, str) else list(targets)
    shapes, candidates, places = adaptable_layers(model, exclude=head), _candidates(model, head), _places(model)
    for suffix in suffixes:
        named = [name for name in candidates if _matches(suffix, name)]
        if not named:
            raise ValueError(f"target {suffix!r} matches no layer outside the head{near_misses(suffix, shapes)}")
        for name in named:
            if why := _refused(candidates[name], places) or _of_groups(candidates[name]):
                raise ValueError(f"target {suffix!r} means {name!r}, which LoRA cannot go around: {why}")
    return {name: shape for name, shape in shapes.items() if any(_matches(s, name) for s in suffixes)}


def _of_word(model: nn.Module, word: str, head: Sequence[str]) -> dict[str, tuple[int, int]]:
    if shapes := _selected(model, word, head):
        return shapes
    lacking, more = f"target {word!r} selects nothing: {type(model).__name__} has no", ""
    if word == ALL_LINEAR and _selected(model, ALL_LAYERS, head):
        more = f" outside the head; {ALL_LAYERS!r} adapts its convolutions"
    raise ValueError(f"{lacking} {'linear layer' if word == ALL_LINEAR else 'layer that LoRA can go around'}{more}")


def _of_groups(module: nn.Module) -> str | None:
    """Say why a study does not adapt a layer with groups of outputs; None for another layer."""
    groups = groups_of(_frozen(module))
    return f"its {groups} groups would have to share each rank out" if groups > 1 else None


class LayerOptions(TypedDict, total=False):
    """How the LoRA layers of a model are made.

    Attributes:
        alpha: Numerator of the scale, for all layers or by module name.
        scaling: The rule for the scale.
        dropout: Probability of zeroing an input of an update.
        seed: The trial's seed.
        kind: Makes a layer from the arguments of :class:`~rankexp.lora.layer.LoRALayer`.
    """

    alpha: Required[float | Mapping[str, float]]
    scaling: Scaling
    dropout: float
    seed: Required[int]
    kind: Callable[..., LoRALayer]


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
        ValueError: A name is no layer of the model to adapt, a rank or alpha is out of range for its layer, or the
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
    kind: Callable[..., LoRALayer] = LoRALayer,
) -> dict[str, LoRALayer]:
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
    shapes = adaptable_layers(model)
    adapted = {}
    for name in sorted(rank_map):
        if name not in shapes:
            raise ValueError(f"rank map: {name!r} is no layer of the model to adapt{near_misses(name, shapes)}")
        if rank_map[name] == 0:
            continue
        adapted[name] = shapes[name]
        groups = groups_of(model.get_submodule(name))
        check_rank(rank_map[name], shapes[name], f"rank map: rank of {name!r}", groups)
        if isinstance(alpha, Mapping) and name not in alpha:
            raise ValueError(f"alpha: no value for {name!r}")
        scaling_factor(rank_map[name], _alpha_of(alpha, name), scaling)
    return adapted
