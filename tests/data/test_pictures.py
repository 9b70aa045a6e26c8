"""Pictures as people keep them: folders, tables, arrays; and files that are none."""

import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rankexp.data.pictures import (
    decoded,
    is_picture_folder,
    picture_of_cell,
    pictures_of_arrays,
    read_arrays,
    read_picture_folder,
)
from rankexp.data.readers import read_table
from rankexp.data.table import TaskError


def picture(shade=0, side=8, mode="RGB"):
    return Image.new(mode, (side, side), shade if mode in {"L", "P"} else (shade, 10, 20))


def encoded(image, kind="PNG", **options):
    held = io.BytesIO()
    image.save(held, kind, **options)
    return held.getvalue()


def write_folder(folder, classes=("cat", "dog"), each=3):
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            (folder / name / f"{i}.png").write_bytes(encoded(picture(20 * number + i)))
    return folder


def read(folder, wanted=None):
    said = []
    return read_picture_folder(folder, wanted, said.append), said


def test_a_folder_for_each_class(tmp_path):
    folder = write_folder(tmp_path / "pets")
    (folder / "cat" / "notes.txt").write_text("no picture")
    (folder / "cat" / ".hidden.png").write_text("no picture")
    (folder / "stray.png").write_bytes(encoded(picture()))
    (folder / "dog" / "more").mkdir()
    (folder / "dog" / "more" / "4.JPEG").write_bytes(encoded(picture(99), "JPEG"))
    found, said = read(folder)
    assert is_picture_folder(folder)
    assert said == [f"of {folder} 2 files are not read, first stray.png"]
    assert [one.name for one in found] == [
        *(f"cat/{i}.png" for i in range(3)), *(f"dog/{i}.png" for i in range(3)), "dog/more/4.JPEG",
    ]  # fmt: skip
    assert [one.label for one in found] == ["cat"] * 3 + ["dog"] * 4
    assert all(one.split is None for one in found)
    assert found[1].open().getpixel((0, 0)) == (1, 10, 20)
    assert len({one.digest() for one in found}) == 7


def test_folders_of_our_splits_are_kept(tmp_path):
    for number, name in enumerate(("train", "tune", "decide", "test")):
        write_folder(tmp_path / name, each=1 + number)
    found, said = read(tmp_path)
    assert {one.label for one in found} == {"cat", "dog"}
    assert {one.split for one in found} == {"train", "tune", "decide", "test"}
    assert len(found) == 20
    assert said == []


@pytest.mark.parametrize(("wanted", "count", "left"), [(None, 2, "val, test"), ("train+val", 6, "test")])
def test_of_other_splits_those_are_read_that_are_asked_for_and_the_others_named(tmp_path, wanted, count, left):
    for number, name in enumerate(("train", "val", "test")):
        write_folder(tmp_path / name, each=1 + number)
    (tmp_path / "train" / "stray.png").write_bytes(encoded(picture()))
    found, said = read(tmp_path, wanted)
    assert len(found) == count
    assert all(one.split is None for one in found)
    assert sorted(said[0].rpartition("and not ")[2].split(", ")) == sorted(left.split(", "))
    assert "1 files are not read, first train/stray.png" in said[1]


def test_splits_that_are_not_there_or_hold_no_classes_are_refused(tmp_path, one_sentence):
    write_folder(tmp_path / "val")
    with pytest.raises(TaskError, match="is needed: .* has the splits 'val'"):
        read(tmp_path)
    with pytest.raises(TaskError, match="is 'dev', but .* has the splits 'val'"):
        read(tmp_path, "dev")
    flat = tmp_path / "flat"
    for name in ("train", "test"):
        (flat / name).mkdir(parents=True)
        (flat / name / "0.png").write_bytes(encoded(picture()))
        (flat / name / "metadata.csv").write_text("file_name,label\n0.png,cat\n")
    with pytest.raises(TaskError, match=r"train is a split without a folder for each class; .*metadata\.csv"):
        read(flat)
    with pytest.raises(TaskError, match="has no folders of splits"):
        read(write_folder(tmp_path / "pets"), "train")


@pytest.mark.parametrize(
    "make", [lambda f: None, lambda f: (f / "a.png").write_bytes(b""), lambda f: (f / "data").mkdir()]
)
def test_another_folder_is_none_of_pictures(tmp_path, make):
    make(tmp_path)
    assert not is_picture_folder(tmp_path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path, one_sentence):
    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(picture()))
    folder = write_folder(tmp_path / "pets")
    (folder / "cat" / "linked.png").symlink_to(secret)
    (folder / "linked").symlink_to(write_folder(tmp_path / "others") / "cat")
    found, _ = read(folder)
    outside = [one for one in found if "linked" in one.name]
    assert len(outside) == 4
    for one in outside:
        with pytest.raises(TaskError, match="leads out of the folder"):
            one.digest()


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "sub/../../secret.png"])
def test_a_path_of_a_table_that_leads_out_of_its_folder_is_refused(tmp_path, one_sentence, path):
    (tmp_path / "secret.png").write_bytes(encoded(picture()))
    (tmp_path / "inner" / "sub").mkdir(parents=True)
    with pytest.raises(TaskError, match="leads out of the folder"):
        picture_of_cell(path, tmp_path / "inner", "row-1", "t.csv row 1", "cat").open()


def test_cells_of_a_table(tmp_path):
    data = encoded(picture(7))
    (tmp_path / "a b.png").write_bytes(data)
    for cell in ("a b.png", {"path": "a b.png"}, {"bytes": data, "path": "gone.png"}, data):
        found = picture_of_cell(cell, tmp_path, "row-1", "t row 1", "cat", "patient", "train")
        assert found.open().getpixel((0, 0)) == (7, 10, 20)
        assert (found.name, found.label, found.group, found.split) == ("row-1", "cat", "patient", "train")
    for cell in ("", "  ", None, 3, {}, {"path": None}, ["a b.png"]):
        with pytest.raises(TaskError, match="t row 1 has .* as its picture"):
            picture_of_cell(cell, tmp_path, "row-1", "t row 1", "cat")


def test_parquet_with_the_files_inside(tmp_path):
    rows = [{"bytes": encoded(picture(i)), "path": f"{i}.png"} for i in range(3)]
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 0]}), tmp_path / "t.parquet")
    cells = read_table(tmp_path / "t.parquet").column("image", "task.image").values
    shades = [picture_of_cell(c, tmp_path, str(i), "t", 0).open().getpixel((0, 0))[0] for i, c in enumerate(cells)]
    assert shades == [0, 1, 2]


BROKEN = {
    "empty": b"",
    "text": b"no picture",
    "cut": encoded(picture(side=64), "JPEG")[:400],
    "png header": encoded(picture())[:20],
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_is_no_picture_is_refused_with_its_place(name, one_sentence):
    with pytest.raises(TaskError, match=r"^pets/a\.png is no picture that can be read"):
        decoded(BROKEN[name], "pets/a.png")


def test_a_picture_beyond_any_memory_is_refused(monkeypatch, one_sentence):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    with pytest.raises(TaskError, match="exceeds limit"):
        decoded(encoded(picture()), "a.png")


def test_sixteen_bits_are_refused(one_sentence):
    deep = Image.fromarray(np.full((4, 4), 3000, dtype=np.uint16))
    with pytest.raises(TaskError, match="mode I;16; 8 bits a channel are read"):
        decoded(encoded(deep), "a.png")


def test_a_picture_is_turned_upright():
    wide = Image.new("RGB", (8, 4))
    turned = Image.Exif()
    turned[0x0112] = 6  # it was taken with the camera on its side
    assert decoded(encoded(wide, "JPEG", exif=turned), "a.jpg").size == (4, 8)


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1", "RGBA", "CMYK"])
def test_every_usual_mode_is_read(mode):
    image = Image.new("RGB", (4, 4), (200, 10, 20)).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert decoded(encoded(image, kind), "a").convert("RGB").size == (4, 4)


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 8, 8, 1), (5, 8, 8, 3)])
def test_arrays(tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, shape)
    np.savez(tmp_path / "a.npz", images=images, labels=np.arange(5))
    found = read_arrays(tmp_path / "a.npz")
    assert [one.label for one in found] == [0, 1, 2, 3, 4]
    assert np.array_equal(np.array(found[2].open()).reshape(shape[1:]), images[2])
    assert len({one.digest() for one in found}) == 5


def test_arrays_of_truth_values_are_black_and_white():
    found = pictures_of_arrays("a", np.eye(4, dtype=bool)[None], np.arange(1))
    assert sorted(set(np.array(found[0].open()).ravel().tolist())) == [0, 255]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((3, 4, 4)), np.arange(3), "float64 that are not all whole numbers"),
        (np.full((3, 4, 4), 256), np.arange(3), "whole numbers from 0 to 255"),
        (np.full((3, 4, 4), -1), np.arange(3), "whole numbers from 0 to 255"),
        (np.zeros((3, 4, 4, 2), dtype=np.uint8), np.arange(3), "perhaps with 1 or 3 channels"),
        (np.zeros((3, 4, 4), dtype=np.uint8), np.arange(2), "labels of shape"),
        (np.zeros((3, 16), dtype=np.uint8), np.arange(3), "images of shape"),
    ],
)
def test_arrays_of_another_form_are_refused(images, labels, says, one_sentence):
    with pytest.raises(TaskError, match=says):
        pictures_of_arrays("a.npz", images, labels)


@pytest.mark.parametrize(
    "held", [{"x": np.zeros(3)}, {"images": np.zeros((2, 2, 2)), "labels": np.array(["a", None], dtype=object)}]
)
def test_arrays_that_are_not_there_or_would_run_code_are_refused(tmp_path, held, one_sentence):
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(TaskError, match="holds no arrays 'images' and 'labels'"):
        read_arrays(tmp_path / "a.npz")


def test_a_pipe_does_not_block(tmp_path, one_sentence):
    folder = write_folder(tmp_path / "pets")
    os.mkfifo(folder / "cat" / "pipe.png")
    (pipe,) = [one for one in read(folder)[0] if "pipe" in one.name]
    with pytest.raises(TaskError, match="which is a pipe or device"):
        pipe.open()
