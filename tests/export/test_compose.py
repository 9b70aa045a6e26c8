"""Adapters that PEFT trained, put together: exactly, cut to a rank, and as PEFT itself does it."""

from __future__ import annotations

import json
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from test_analyze import deltas, planted, stack, trained_by_peft
from thorough import later

from rankexp.analysis.updates.adapter_folder import read_adapter
from rankexp.analysis.updates.squeezed_folder import write_squeezed
from rankexp.analysis.updates.used_ranks import ranks_for
from rankexp.cli.commands.compose import WAYS
from rankexp.cli.main import main
from rankexp.export.composed import Way, composed
from rankexp.option_errors import ConfigError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of PEFT, about what it is given


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two adapters of one base, of other ranks and scales, which adapt other layers besides."""
    folder = tmp_path_factory.mktemp("pair")
    trained_by_peft(folder / "a", planted(2), rank=4, steps=8)
    trained_by_peft(folder / "b", planted(3), rank=6, steps=8, use_rslora=True, alpha_pattern={"layers.3": 5})
    return folder / "a", folder / "b"


def updates_of(folder):
    from peft import PeftModel

    return deltas(PeftModel.from_pretrained(stack(), folder))


def test_the_sum_is_the_sum_of_the_updates(pair, tmp_path):
    whole = composed([read_adapter(folder) for folder in pair], [0.7, -0.4])
    assert {layer.rank for layer in whole.layers.values()} == {10}
    write_squeezed(whole, ranks_for(whole.layers, rank=10), tmp_path / "sum")
    one, other, both = (updates_of(folder) for folder in (*pair, tmp_path / "sum"))
    for name, found in both.items():
        np.testing.assert_allclose(found, 0.7 * one[name] - 0.4 * other[name], atol=1e-6)


@pytest.mark.parametrize("way", ["ties", later("dare_linear"), later("dare_ties"), later("magnitude_prune")])
def test_other_ways_are_pefts_on_whole_updates(pair, tmp_path, way):
    from peft import PeftModel

    model = PeftModel.from_pretrained(stack(), pair[0], adapter_name="a")
    model.load_adapter(pair[1], adapter_name="b")
    torch.manual_seed(0)
    model.add_weighted_adapter(["a", "b"], [0.6, 0.5], "both", combination_type=f"{way}_svd", svd_rank=5, density=0.4)
    found = composed([read_adapter(folder) for folder in pair], [0.6, 0.5], way, rank=5, density=0.4)
    for name, layer in found.layers.items():
        theirs = model.base_model.model.get_submodule(name).get_delta_weight("both").detach().double().numpy()
        left, values, right = layer.parts
        ours = left[:, :5] * values[:5] @ right[:5]
        if way.startswith("dare"):  # drops at random
            assert np.linalg.norm(ours) == pytest.approx(np.linalg.norm(theirs), rel=0.3)
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_command_offers_every_way_there_is():
    assert get_args(Way) == WAYS


def test_a_seed_gives_the_same_and_another_other_numbers(pair):
    adapters = [read_adapter(folder) for folder in pair]
    first, again, other = (
        composed(adapters, [1, 1], "dare_linear", rank=3, seed=seed).layers["layers.0"].parts[1] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


def test_the_command_writes_what_peft_loads_and_says_what_is_kept(pair, tmp_path, capsys):
    words = ["compose", *map(str, pair), "--out"]
    assert main([*words, str(tmp_path / "all")]) == 0
    assert "which keep 100.0% of what was composed" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "few"), "--way", "svd", "--rank", "2", "--weights", "1", "0.5"]) == 0
    assert "layers of rank at most 2" in capsys.readouterr().out
    assert json.loads((tmp_path / "few/adapter_config.json").read_text())["r"] == 2
    one, other, few = (updates_of(folder) for folder in (*pair, tmp_path / "few"))
    for name, found in few.items():
        left, values, right = np.linalg.svd(one[name] + 0.5 * other[name])
        np.testing.assert_allclose(found, left[:, :2] * values[:2] @ right[:2], atol=1e-5)
    assert main([*words, str(tmp_path / "few")]) == 2
    assert "nothing is written over" in capsys.readouterr().err


def test_what_does_not_go_together_is_told(pair, tmp_path):
    adapters = [read_adapter(folder) for folder in pair]
    for how, why in (
        ({"weights": [1]}, "2 adapters need as many weights, and 1 are given"),
        ({"weights": [0, 0]}, "not all of them 0"),
        ({"weights": [1, float("nan")]}, "finite"),
        ({"way": "svd"}, "svd needs a rank"),
        ({"way": "ties", "rank": 2, "density": 0}, "density is 0"),
        ({"rank": 0}, "rank is 0"),
        ({"adapters": adapters[:1], "weights": [1]}, "two adapters or more"),
    ):
        given = {"adapters": adapters, "weights": [1, 1], **how}
        with pytest.raises(ConfigError, match=why):
            composed(given.pop("adapters"), given.pop("weights"), given.pop("way", "sum"), **given)
    trained_by_peft(tmp_path / "dora", planted(2), rank=2, steps=2, use_dora=True)
    with pytest.raises(ConfigError, match="is DoRA, whose magnitudes have no sum"):
        composed([adapters[0], read_adapter(tmp_path / "dora")], [1, 1])


def test_heads_and_bases_of_their_own_are_not_mixed_in_silence(pair, tmp_path):
    for name, config, tensors, why in (
        ("head", {}, {"base_model.model.head.weight": np.ones((2, 3), np.float32)}, "brings a head or rows of its own"),
        ("base", {"base_model_name_or_path": "another"}, {}, "the adapters differ in base_model_name_or_path"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        kept = json.loads((pair[1] / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**kept, **config}))
        save_file({**load_file(pair[1] / "adapter_model.safetensors"), **tensors}, folder / "adapter_model.safetensors")
        with pytest.raises(ConfigError, match=why):
            composed([read_adapter(pair[0]), read_adapter(folder)], [1, 1])
