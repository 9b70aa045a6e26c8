"""Classification of images under the laws of every task, with convolutions adapted too."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from adapter_laws import check_packed, check_resumed
from thorough import later, later_but
from tiny_bench import digests
from tiny_images import MODELS, make_base, make_bench, make_spec

from rankexp.lora.inject import linear_modules, target_shapes
from rankexp.lora.pack import Pack
from rankexp.objectives.images import ImageLabels
from rankexp.option_errors import ConfigError
from rankexp.record.trials import TrialStore
from rankexp.training.anatomy import anatomy_of
from rankexp.training.bench import prepare
from rankexp.training.readback import read_back
from rankexp.training.scoring import score
from rankexp.training.trial import train_trial
from rankexp.trial_spec import Scoring

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

SOME = ["vit", "resnet"]
EVERY = later_but(SOME, MODELS)


@pytest.fixture(scope="module")
def benches(tmp_path_factory):
    return cache(lambda name: make_bench(tmp_path_factory.mktemp("bench"), name))


def in_float64(bench):
    return replace(
        bench, pack=Pack(copy.deepcopy(bench.model).double()), data=replace(bench.data, objective=Double.of(bench))
    )


class Double(ImageLabels):
    """As it is, with pixels in float64."""

    @classmethod
    def of(cls, bench):
        ours = bench.data.objective
        return cls(ours.labels, ours.scale, ours.shift, ours.augment)

    def collate(self, *args):
        batch = super().collate(*args)
        return replace(batch, inputs={"pixel_values": batch.inputs["pixel_values"].double()})


@pytest.mark.parametrize("name", EVERY)
def test_the_adapter_in_peft_gives_the_recorded_scores_of_every_example(benches, tmp_path, name):
    from peft import PeftModel

    bench = benches(name)
    trial = train_trial(bench, make_spec(bench, alpha=32.0), TrialStore(tmp_path))
    recorded = trial.scores("decide")
    bare = make_base(name).build(bench.data.objective.kind)
    prepare(bare, bench.device)
    model = PeftModel.from_pretrained(bare, trial.adapter).eval()
    again = score(model, bench.collator(bench.data.splits["decide"]), precision="float32")
    np.testing.assert_allclose(again.values["loss"], recorded.values["loss"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(again.values["accuracy"], recorded.values["accuracy"])
    assert read_back(bench.base, bench.data, trial, bench.device).passed
    assert (
        recorded.values["loss"].mean()
        != bench.score_trial(train_trial(bench, make_spec(bench, steps=1), TrialStore(tmp_path)), Scoring("decide"))
        .values["loss"]
        .mean()
    )


@pytest.mark.parametrize("name", EVERY)
def test_a_pack_is_each_of_it_alone(benches, tmp_path, name):
    bench = in_float64(benches(name))
    assert bench.packs
    changes = [{"rank": 1, "seed": 0}, {"rank": 2, "seed": 1, "dropout": 0.3}, {"seed": 2, "scaling": "rslora"}]
    specs = [make_spec(bench, steps=6, alpha=8.0, **change) for change in changes]
    check_packed(bench, tmp_path, *specs, make_spec(bench, method="head", steps=6), rtol=1e-9)


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_interrupted_and_resumed_it_ends_with_the_bits_of_one_go(benches, tmp_path, name):
    bench = benches(name)
    check_resumed(bench, tmp_path, make_spec(bench, dropout=0.2))


@pytest.mark.parametrize(
    "augment", [later(("flip",)), later(("crop",)), ("flip", "crop")], ids=lambda names: "+".join(names)
)
def test_pictures_that_are_changed_at_random_are_so_by_the_trials_seed_alone(tmp_path, augment):
    bench = make_bench(tmp_path, augment=augment)
    plain = make_bench(tmp_path)
    assert bench.data.fingerprint != plain.data.fingerprint
    spec = make_spec(bench)
    check_resumed(bench, tmp_path / "resumed", spec)
    check_packed(in_float64(bench), tmp_path / "packed", *[replace(spec, seed=seed) for seed in (0, 1, 2)], rtol=1e-9)
    unchanged = replace(spec, data=plain.data.fingerprint)
    losses = [
        [row["loss"] for row in train_trial(b, s, TrialStore(tmp_path / n)).result.history]
        for n, b, s in (("a", bench, spec), ("b", plain, unchanged))
    ]
    assert not np.allclose(*losses)


def test_a_change_keeps_the_size_and_what_is_not_at_the_edge():
    objective = ImageLabels(("a", "b"), augment=("flip", "crop"))
    images = torch.arange(2 * 16 * 16, dtype=torch.float32).reshape(2, 1, 16, 16)
    seen = [objective._changed(images, np.random.default_rng(seed)) for seed in range(40)]
    assert all(image.shape == images.shape for image in seen)
    centre = images[0, 0, 8, 8]
    assert all((image[0] == centre).sum() == 1 for image in seen)  # moved or turned over, and still there
    assert len({float(image[0, 0, 8, 8]) for image in seen}) > 8
    turned = [bool(image[0, 0, 8, 8] > image[0, 0, 8, 9]) for image in seen]
    assert 5 < sum(turned) < 35


@pytest.mark.parametrize(
    "method", later_but({"adalora", "full"}, ["lora", "dora", "adalora", "nested", "head", "full", "subspace"])
)
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_every_method_trains(benches, tmp_path, name, method):
    bench = benches(name)
    options = {"nested_ranks": (1, 2)} if method == "nested" else {"dimension": 50} if method == "subspace" else {}
    spec = make_spec(bench, method=method, steps=30, **options)
    trial = train_trial(bench, spec, TrialStore(tmp_path))
    losses = [row["loss"] for row in trial.result.history]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    again = bench.score_trial(trial, Scoring("decide")) if method != "subspace" else trial.scores("decide")
    np.testing.assert_array_equal(again.values["loss"], trial.scores("decide").values["loss"])


@pytest.mark.parametrize("initialisation", ["pissa", "eva"])
@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_every_start_trains_and_is_deterministic(benches, tmp_path, name, initialisation):
    bench = benches(name)
    spec = make_spec(bench, initialisation=initialisation, learning_rate=3e-3)
    trials = [train_trial(bench, spec, TrialStore(tmp_path / str(i))) for i in range(2)]
    assert digests(trials[0]) == digests(trials[1])
    assert read_back(bench.base, bench.data, trials[0], bench.device).passed


@pytest.mark.parametrize("name", EVERY)
def test_the_loss_is_that_of_transformers_and_a_batch_changes_no_score(benches, name):
    bench = benches(name)
    examples, objective = bench.data.splits["decide"], bench.data.objective
    collator = bench.collator(examples)
    batch = collator(np.arange(len(examples)))
    with torch.no_grad():
        ours = objective.losses(bench.model, batch)
        theirs = bench.model(**batch.inputs, labels=batch.labels).loss
        alone = torch.cat([objective.losses(bench.model, collator(np.array([i]))) for i in range(len(examples))])
    assert float(ours.mean()) == pytest.approx(float(theirs), rel=1e-6)
    torch.testing.assert_close(alone, ours, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_pixels_are_those_of_the_models_own_processor(benches, name):
    from PIL import Image
    from tiny_images import pictures

    bench = benches(name)
    examples = bench.data.splits["train"]
    collator = bench.collator(examples)
    ours = collator(np.arange(4)).inputs["pixel_values"].numpy()
    images, _ = pictures()
    numbers = [int(name.removeprefix("image-")) for name in examples.example_ids[:4]]
    theirs = bench.base.processor.processor([Image.fromarray(images[i]) for i in numbers], return_tensors="np")
    np.testing.assert_allclose(ours, theirs["pixel_values"], atol=1e-6)
    assert examples.pixels.dtype == np.uint8


def test_a_model_that_reads_the_stride_of_its_convolutions_is_refused_in_a_sentence(tmp_path, one_sentence):
    from peft import LoraConfig, get_peft_model

    from rankexp.models.base import find_model

    padded = {**MODELS["mobilenet"], "tf_padding": True}
    bench = make_bench(
        tmp_path, base=find_model(name="m", source="config", path=None, architecture=padded, reads="images")
    )
    with pytest.raises(ConfigError, match="LoRA cannot go in this model, in PEFT neither: .*stride"):
        bench.check_layers(bench.shapes("all-layers"))
    assert not bench.packs
    theirs = get_peft_model(bench.model, LoraConfig(r=2, target_modules=["conv_1x1.convolution"]))
    with pytest.raises(AttributeError, match="stride"):
        theirs(pixel_values=torch.zeros(1, 3, 32, 32))


def test_an_image_of_another_size_is_refused_before_training(tmp_path, one_sentence):
    base = make_base("vit")
    odd = copy.deepcopy(base.processor.processor)
    odd.size = {"height": 12, "width": 12}
    with pytest.raises(ConfigError, match=r"the model cannot take pixel_values of shape \(3, 12, 12\)"):
        make_bench(tmp_path, base=replace(base, processor=replace(base.processor, processor=odd)))


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_left_out_in_silence(benches, name):
    bench = benches(name)
    model, saved = bench.model, bench.saved
    assert saved == ("classifier",)
    found = anatomy_of(
        model, "all-layers", [2], 16, row=bench.collator(bench.data.splits["train"])(np.arange(1)).inputs
    )
    assert found.length is None
    assert found.activations > 0
    told = {left.kind.name for left in found.left} | {one.name for one in found.adapted} | set(saved)
    matrices = {
        name.rpartition(".")[0] for name, p in model.named_parameters() if p.dim() >= 2 and min(p.shape[:2]) > 1
    }
    from rankexp.training.reach import kind_name

    lacking = {one for one in map(kind_name, matrices) if not any(f"{name}.".startswith(f"{one}.") for name in told)}
    assert not {one for one in lacking if not one.startswith("classifier")}


def test_what_all_linear_and_all_layers_mean(benches):
    vit, resnet, mobile = (benches(name) for name in ("vit", "resnet", "mobilenet"))
    assert set(vit.shapes("all-layers")) - set(vit.shapes("all-linear")) == {
        "vit.embeddings.patch_embeddings.projection"
    }
    with pytest.raises(ValueError, match="'all-layers' adapts its convolutions"):
        resnet.shapes("all-linear")
    assert not linear_modules(resnet.model, exclude=["classifier"])
    grouped = [name for name, m in mobile.model.named_modules() if getattr(m, "groups", 1) > 1]
    assert grouped
    assert not set(grouped) & set(mobile.shapes("all-layers"))
    with pytest.raises(ValueError, match="groups would have to share each rank out"):
        target_shapes(mobile.model, [grouped[0]], [])
