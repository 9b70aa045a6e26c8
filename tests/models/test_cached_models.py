"""Models that a script has trained and kept in the cache of assets."""

from __future__ import annotations

import pytest
import tiny_images
import torch

from rankexp.models.base import find_model
from rankexp.models.files import ModelError
from rankexp.models.kinds import image_classifier


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RANKEXP_CACHE", str(tmp_path))
    return tmp_path / "pretrained"


@pytest.mark.slow
def test_a_model_of_the_cache_is_found_by_its_name_and_is_what_was_saved(cache):
    base = tiny_images.make_base("vit")
    made = base.build(image_classifier(5))
    made.save_pretrained(cache / "my_digits")
    base.processor.processor.save_pretrained(cache / "my_digits")
    found = find_model(name="mine", source="cache", path="my_digits", reads="images")
    assert found.reference == "rankexp-cache:my_digits"
    assert found.loads_from == str(cache / "my_digits")
    theirs, ours = (model.state_dict() for model in (made, found.build(image_classifier(5))))
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


@pytest.mark.parametrize("name", ["nothing", "../trials", "a/b", "", "Digits", ".", "digits_vit\n"])
def test_what_is_not_there_is_told_with_what_makes_it(cache, name):
    (cache.parent / "trials").mkdir()
    with pytest.raises(ModelError) as error:
        find_model(name="mine", source="cache", path=name, reads="images")
    assert "is not in the cache" in str(error.value) or "'model.path' is missing" in str(error.value)
