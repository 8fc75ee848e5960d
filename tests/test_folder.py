"""Folders of images: every kind of good and bad file a user may have."""

import io
import os
import struct
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import folder
from dcgan_lib.data import load_dataset
from dcgan_lib.errors import UserError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def save(path, colour=RED, size=(40, 40), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def load(path, size=32, split="train", **options):
    """Load a folder in which nothing may be skipped."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_dataset(f"folder:{path}", size, split, **options)


def load_one(path, name="a.png", **options):
    """Load a folder to which a second, plain image is added; return the pixels of `name`, int (3, 32, 32)."""
    save(path / "zz.png", BLUE)
    images, kept = folder.read_images(path, [name], 32)
    assert kept == [name]
    assert images.dtype == torch.uint8
    return images[0].int()


def assert_colour(image, colour, tolerance=0):
    difference = (image - torch.tensor(colour)[:, None, None]).abs().max().item()
    assert difference <= tolerance, f"{difference} levels off"


# Good images


def test_nested_folder_is_sorted_and_labelled(tmp_path):
    for name in ("b/x.png", "a/deep/y.jpg", "a/w.PNG", "root.bmp"):
        save(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.png").write_bytes(b"")
    assert folder.find_images(tmp_path) == ["a/deep/y.jpg", "a/w.PNG", "b/x.png", "root.bmp"]
    dataset = load(tmp_path)
    assert dataset.label_names == {"folder": (".", "a", "b")}
    split_of = folder._split_of(folder.find_images(tmp_path))
    expected = [value for value, name in zip((1, 1, 2, 0), split_of, strict=True) if split_of[name] == "train"]
    assert dataset.labels[:, 0].tolist() == expected
    assert dataset.images.shape == (len(expected), 3, 32, 32)
    assert dataset.name == f"folder:{tmp_path}"


def test_a_flat_folder_has_no_labels(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    dataset = load(tmp_path)
    assert dataset.labels.shape == (2, 0)
    assert dataset.labels.dtype == torch.int64
    assert dataset.label_names == {}


@pytest.mark.parametrize(("size", "box"), [((96, 64), (16, 0, 80, 64)), ((64, 96), (0, 16, 64, 80))])
def test_shorter_side_is_resized_and_the_centre_cut_out(tmp_path, size, box):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.png")
    got = load_one(tmp_path)
    # Independent of Pillow: the average of 2 x 2 pixels; the bicubic filter differs from it by little here.
    expected = np.asarray(smooth.crop(box), dtype=float).reshape(32, 2, 32, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(got.numpy() - expected).max() < 6


def test_fine_patterns_do_not_alias(tmp_path):
    stripes = np.zeros((256, 256, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert_colour(load_one(tmp_path)[:, 2:-2, 2:-2], (127, 127, 127), 3)


def test_an_image_of_the_right_size_is_untouched(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_one(tmp_path).numpy(), pixels.transpose(2, 0, 1))


def test_a_large_jpeg_is_decoded_like_a_large_png(tmp_path):
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)).resize((900, 600))
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.jpg", quality=95, subsampling=0)
    difference = (load_one(tmp_path, "a.png") - load_one(tmp_path, "b.jpg")).abs()
    assert difference.float().mean() < 3  # measured 1.7: JPEG is decoded at a quarter of its size
    assert difference.max() < 12


def test_content_counts_not_the_suffix(tmp_path):
    save(tmp_path / "misnamed.jpg", GREEN, format="PNG")
    assert_colour(load_one(tmp_path, "misnamed.jpg"), GREEN)


def test_cmyk(tmp_path):
    save(tmp_path / "a.jpg", (0, 255, 255, 0), mode="CMYK", quality=100)
    assert_colour(load_one(tmp_path, "a.jpg"), RED, 3)


def test_palette_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (40, 40), 1)
    picture.putpalette([0, 0, 255, 0, 255, 0])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=1)
    assert_colour(load_one(tmp_path, "a.png"), GREEN)
    assert_colour(load_one(tmp_path, "b.png"), WHITE)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (257 * 100, 100), (65535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_grey(tmp_path, level, expected, suffix):
    Image.fromarray(np.full((40, 40), level, dtype=np.uint16)).save(tmp_path / f"a.{suffix}")
    assert_colour(load_one(tmp_path, f"a.{suffix}"), (expected,) * 3)


@pytest.mark.parametrize(("mode", "colour", "expected"), [("L", 90, 90), ("1", 1, 255), ("LA", (0, 0), 255)])
def test_other_grey_modes(tmp_path, mode, colour, expected):
    save(tmp_path / "a.png", colour, mode=mode)
    assert_colour(load_one(tmp_path), (expected,) * 3)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (40, 40), colour) for colour in (GREEN, RED, BLUE)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert_colour(load_one(tmp_path, "a.gif"), GREEN)
    assert_colour(load_one(tmp_path, "a.png"), GREEN)


def test_transparent_pixels_show_white_without_a_halo(tmp_path):
    pixels = np.zeros((64, 64, 4), dtype=np.uint8)  # transparent black, the usual culprit of dark halos
    pixels[:, :33] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = load_one(tmp_path)
    assert image[0].min() >= 254  # red and white both have full red: any dark fringe would lower it
    assert_colour(image[:, :, 20:], WHITE)
    save(tmp_path / "half.png", (0, 0, 0, 128), mode="RGBA")
    assert_colour(load_one(tmp_path, "half.png"), (127, 127, 127))


def test_camera_orientation_is_applied(tmp_path):
    picture = Image.new("RGB", (40, 40), RED)
    picture.paste(BLUE, (0, 0, 40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    picture.save(tmp_path / "a.png", exif=exif)
    image = load_one(tmp_path)
    assert_colour(image[:, :, -8:], BLUE)
    assert_colour(image[:, :, :8], RED)


# Bad images


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def bad_files():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return {
        "broken.png": (b"\x89PNG\r\n\x1a\n" + b"\x07" * 300, "not an image"),
        "empty.png": (b"", "empty file"),
        "truncated.jpg": (buffer.getvalue()[:900], "truncated"),
        "text.jpg": (b"hello", "not an image"),
        "bomb.png": (png_header(9600, 9600), "enormous: 9600 x 9600 pixels"),
        "bigbomb.png": (png_header(60000, 60000), "enormous"),
    }


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_image_is_named_counted_and_skipped(tmp_path, name):
    content, reason = bad_files()[name]
    for i in range(12):
        save(tmp_path / f"good{i}.png")
    (tmp_path / name).write_bytes(content)
    expected = [entry for entry, split in folder._split_of(folder.find_images(tmp_path)).items() if split == "train"]
    with pytest.warns(UserWarning, match="skipped") as caught:
        images, kept = folder.read_images(tmp_path, [*expected, name] if name not in expected else expected, 32)
    (warning,) = caught
    message = str(warning.message)
    assert message.startswith("skipped 1 of ")
    assert name in message
    assert reason in message
    assert "\n" not in message
    assert len(images) == len(kept) == len([entry for entry in expected if entry != name])


def test_many_bad_images_give_one_short_warning(tmp_path):
    for i in range(30):
        save(tmp_path / f"good{i}.png")
        (tmp_path / f"bad{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"^skipped \d+ of \d+ images in .*, and \d+ more$") as caught:
        load_dataset(f"folder:{tmp_path}", 32)
    assert len(caught) == 1


def test_bad_images_do_not_count_towards_the_limit(tmp_path):
    for i in range(40):
        save(tmp_path / f"good{i}.png")
        (tmp_path / f"bad{i}.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped"):
        assert len(load_dataset(f"folder:{tmp_path}", 32, limit=20)) == 20


def test_line_breaks_in_a_name_do_not_break_the_line(tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="skipped") as caught:
        folder.read_images(tmp_path, ["a\nb.png"], 32)
    assert "\n" not in str(caught[0].message)


def test_an_unreadable_range_is_skipped(tmp_path):
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.warns(UserWarning, match="floating-point pixels"):
        assert folder.read_images(tmp_path, ["float.tif"], 32)[1] == []


# Bad folders


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file, not a folder"),
        (lambda path: path.mkdir(), "holds no image"),
        (lambda path: save(path / "a.png"), "only one image"),
        (lambda path: (path.mkdir(), (path / "a.txt").write_text("x")), "holds no image"),
    ],
)
def test_folders_that_cannot_work(tmp_path, make, message):
    make(tmp_path / "pictures")
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(f"folder:{tmp_path / 'pictures'}", 32)
    assert "\n" not in str(caught.value)


def test_a_folder_of_broken_images(tmp_path):
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(UserError, match=r"has 0 of \d images"):
        load_dataset(f"folder:{tmp_path}", 32)


def test_a_folder_with_one_good_image(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"broken")
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(UserError, match="has 1 of 2 images"):
        load_dataset(f"folder:{tmp_path}", 32)


@pytest.mark.parametrize("what", ["the folder", "what is in it"])
def test_a_folder_that_vanishes_is_not_taken_for_broken_images(tmp_path, monkeypatch, what):
    source, read = tmp_path / "pictures", folder._read
    for i in range(20):
        save(source / f"{i:02}.png")

    def vanish(path, size):
        if path.name == "10.png":
            source.rename(tmp_path / "away")
            if what == "what is in it":  # a disk that is unmounted leaves an empty folder
                source.mkdir()
        return read(path, size)

    monkeypatch.setattr(folder, "_read", vanish)
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(UserError, match="vanished while it was read: mount"),
    ):
        load_dataset(f"folder:{source}", 32)


def test_no_path():
    with pytest.raises(UserError, match="does not exist"):
        load_dataset("folder:", 32)


@pytest.mark.skipif(os.name != "posix", reason="making links needs a right of its own on Windows")
def test_links_are_followed_once(tmp_path):
    save(tmp_path / "real" / "a.png")
    save(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "real" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    assert folder.find_images(tmp_path / "real") == ["a.png", "nowhere.png", "other/b.png"]
    with pytest.warns(UserWarning, match=r"nowhere\.png \(No such file"):
        kept = folder.read_images(tmp_path / "real", ["a.png", "nowhere.png", "other/b.png"], 32)[1]
    assert kept == ["a.png", "other/b.png"]


# Splits and limits


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    path = tmp_path_factory.mktemp("many")
    for i in range(200):
        save(path / f"{i:03}.png", (i, i, i), (32, 32))
    return path


def greys(dataset):
    return dataset.images[:, 0, 0, 0].tolist()


def test_splits_are_disjoint_and_about_nine_to_one(many):
    train, test = greys(load(many)), greys(load(many, split="test"))
    assert sorted(train + test) == list(range(200))
    assert 10 <= len(test) <= 32
    assert train == sorted(train)


def test_an_image_keeps_its_split_when_others_come(many, tmp_path):
    for i in range(0, 200, 2):
        save(tmp_path / f"{i:03}.png", (i, i, i), (32, 32))
    assert set(greys(load(tmp_path, split="test"))) <= set(greys(load(many, split="test")))


def test_a_folder_may_name_its_splits(tmp_path):
    for number, name in enumerate(["train/hat/a", "train/hat/b", "train/shoe/c", "test/hat/d", "test/dress/e"]):
        save(tmp_path / f"{name}.png", (10 * number,) * 3)
    train, test = (load_dataset(f"folder:{tmp_path}", 32, split=split) for split in ("train", "test"))
    assert train.label_names == test.label_names == {"folder": ("dress", "hat", "shoe")}
    assert train.images[:, 0, 0, 0].tolist() == [0, 10, 20]
    assert train.labels[:, 0].tolist() == [1, 1, 2]
    assert test.images[:, 0, 0, 0].tolist() == [40, 30]
    assert test.labels[:, 0].tolist() == [0, 1]
    # A third sub-folder, or an image beside them, and they are folders like any other.
    save(tmp_path / "f.png")
    assert load_dataset(f"folder:{tmp_path}", 32).label_names == {"folder": (".", "test", "train")}


def test_a_limit_is_a_seeded_choice(many):
    few = greys(load(many, limit=20, seed=1))
    assert few == greys(load(many, limit=50, seed=1))[:20]
    assert few != greys(load(many, limit=20, seed=2))
    assert len(set(few)) == 20
    assert set(few) <= set(greys(load(many)))
    assert len(load(many, limit=10**9)) == len(load(many))


def test_two_images_are_enough_for_training_but_not_for_a_test_split(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    assert len(load(tmp_path)) == 2
    with pytest.raises(UserError, match="too small for a test split"):
        load(tmp_path, split="test")


def test_photographs(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "clothing64" / "clothing64.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:60]
        archive.extractall(tmp_path, names)
    dataset = load(tmp_path, 64)
    assert dataset.images.shape[1:] == (3, 64, 64)
    assert 45 <= len(dataset) <= 59
    assert dataset.images.float().std() > 30
