"""The tasks of images: a user's own pictures, and packaged digits."""

import numpy as np
import pytest
from PIL import Image
from tiny_images import make_base, pictures, write_arrays

from rankexp.models.files import ModelError
from rankexp.models.images import ImageProcessor, processor_of, usual_processor
from rankexp.option_errors import ConfigError
from rankexp.tasks.base import TaskError, make_task
from rankexp.tasks.images import ImagesTask
from rankexp.tasks.mnist import MnistTask
from rankexp.testing.tasks import ClassificationConformance


def processor():
    return make_base("vit").processor


class OfImages(ClassificationConformance):
    def make_processor(self):
        return processor()


@pytest.fixture(scope="module", autouse=True)
def arrays(tmp_path_factory):
    TestArrays.path = write_arrays(tmp_path_factory.mktemp("images") / "a.npz")


class TestArrays(OfImages):
    def make_task(self):
        return ImagesTask(path=str(self.path))


class TestDigits(OfImages):
    def make_task(self):
        return MnistTask(digits=(0, 1), sizes={"train": 60, "tune": 20, "decide": 40, "test": 40})


def write_folder(folder, count=60):
    images, labels = pictures(count)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / ["none", "lying", "standing"][label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


def write_table(folder, count=60, groups=False):
    images, labels = pictures(count)
    folder.mkdir()
    lines = ["file,kind,patient"]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{label},{number // 4 if groups else ''}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder / "labels.csv"


def load(said=None, **options):
    return ImagesTask(**options).load(processor(), (said if said is not None else []).append)


def test_the_same_pictures_in_every_form_give_the_same_pixels(tmp_path):
    images, labels = pictures(60)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    found = [
        load(path=str(tmp_path / "a.npz")),
        load(path=str(write_folder(tmp_path / "folder"))),
        load(path=str(write_table(tmp_path / "table")), image="file", label="kind"),
    ]
    sums = [sorted(int(p.sum()) for split in data.splits.values() for p in split.pixels) for data in found]
    assert sums[0] == sums[1] == sums[2]
    assert [len(data.objective.labels) for data in found] == [3, 3, 3]


def test_groups_are_not_cut(tmp_path):
    data = load(path=str(write_table(tmp_path / "t", groups=True)), image="file", label="kind", group="patient")
    groups = [set(split.group_ids.tolist()) for split in data.splits.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15


def test_pictures_that_come_twice_are_left_out_and_counted(tmp_path):
    folder = write_folder(tmp_path / "f")
    first = next(iter((folder / "none").iterdir()))
    (folder / "none" / "again.png").write_bytes(first.read_bytes())
    (folder / "standing" / "again.png").write_bytes(first.read_bytes())
    said = []
    data = load(said, path=str(folder))
    assert {name: found.rows for name, found in data.summary.left_out.items()} == {"repeated": 1, "contradicting": 1}
    assert any("repeating the picture of an earlier row" in line for line in said)


def test_a_corrupt_picture_is_named(tmp_path, one_sentence):
    folder = write_folder(tmp_path / "f")
    broken = folder / "lying" / "1.png"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(TaskError, match=r"lying/1\.png is no picture that can be read"):
        load(path=str(folder))


def test_splits_of_the_owner_are_kept(tmp_path):
    images, labels = pictures(80)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = tmp_path / "d" / ("train", "tune", "decide", "test")[number % 4] / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    data = load(path=str(tmp_path / "d"))
    assert {name: len(split) for name, split in data.splits.items()} == dict.fromkeys(data.splits, 20)
    assert all(name.startswith("tune/") for name in data.splits["tune"].example_ids.tolist())


def test_the_fingerprint_hangs_on_pixels_processor_and_changes(tmp_path):
    path = str(write_arrays(tmp_path / "a.npz"))
    plain, same, flipped = load(path=path), load(path=path), load(path=path, augment=["flip"])
    assert plain.fingerprint == same.fingerprint != flipped.fingerprint
    assert plain.test_fingerprint == flipped.test_fingerprint
    darker = processor()
    darker.processor.image_mean = [0.4, 0.5, 0.5]
    assert ImagesTask(path=path).load(darker, lambda _: None).fingerprint != plain.fingerprint


def test_a_processor_that_does_more_than_scale_is_kept_to_in_full():
    class Squared:
        def __call__(self, image, *, do_rescale=True, do_normalize=True, **_):
            values = np.moveaxis(np.asarray(image), -1, 0).astype(np.float32)
            return {"pixel_values": [(values / 255) ** 2 if do_rescale else values]}

    images, _ = pictures(4)
    found = ImageProcessor(Squared()).pixels(map(Image.fromarray, images))
    assert found.values.dtype == np.float32
    assert (found.scale, found.shift) == ((1.0,) * 3, (0.0,) * 3)
    np.testing.assert_allclose(found.values[1], (np.moveaxis(images[1], -1, 0) / 255) ** 2, rtol=1e-6)


def test_pictures_of_several_sizes_need_a_processor_that_cuts_them(one_sentence):
    from transformers import ResNetConfig

    ours = usual_processor(ResNetConfig())
    with pytest.raises(ModelError, match="images of several sizes, 8 x 8 and 6 x 9"):
        ours.pixels([Image.new("RGB", (8, 8)), Image.new("RGB", (6, 9))])


def test_shades_of_grey():
    from transformers import ViTConfig

    ours = usual_processor(ViTConfig(image_size=8, num_channels=1))
    found = ours.pixels([Image.new("RGB", (16, 16), (255, 255, 255)), Image.new("L", (8, 8), 0)])
    assert found.values.shape == (2, 1, 8, 8)
    assert [int(image.mean()) for image in found.values] == [255, 0]
    assert (found.scale[0] * 255 + found.shift[0], found.shift[0]) == pytest.approx((1, -1))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_model_of_other_channels_is_refused(channels, one_sentence):
    from transformers import ViTConfig

    with pytest.raises(ModelError, match=f"images of {channels} channels"):
        usual_processor(ViTConfig(num_channels=channels))


def test_a_folder_without_an_image_processor_is_refused(tmp_path, one_sentence):
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        processor_of(tmp_path)


def test_texts_and_pictures_are_not_mixed_up(tmp_path, one_sentence):
    path = write_arrays(tmp_path / "a.npz")
    with pytest.raises(TaskError, match="has pictures, and the model was found as one that reads texts"):
        ImagesTask(path=str(path)).load(lambda *_: [], lambda _: None)
    with pytest.raises(TaskError, match="has texts, and the model was found as one that reads images"):
        make_task({"name": "csv", "path": "x.csv"}).load(processor(), lambda _: None)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": "nowhere"}, "no file, no folder|cannot be had"),
        ({"path": "x.npz"}, "cannot be read"),
        ({"path": "~nosuchuser/x"}, "'~nosuchuser/x'"),
        ({"path": "x.npz", "group": "patient"}, "'task.group' is 'patient', and x.npz is no table"),
        ({"path": "x.npz", "augment": ["rotate"]}, "task.augment"),
    ],
)
def test_what_is_not_there_is_one_sentence(tmp_path, monkeypatch, one_sentence, options, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=says):
        make_task({"name": "images", **options}).load(processor(), lambda _: None)


def test_an_empty_folder_of_a_class_is_no_picture(tmp_path, one_sentence):
    (tmp_path / "cat").mkdir()
    with pytest.raises(TaskError):
        load(path=str(tmp_path))
