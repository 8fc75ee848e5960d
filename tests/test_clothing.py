"""The folder of clothing photographs: who goes to which split, and what is said of files that do not fit."""

import csv
import io
import zipfile

import numpy as np
import pytest
from clothing import lay_out, main, split_of
from PIL import Image

from dcgan_lib.data import load_dataset
from dcgan_lib.errors import UserError

SENDERS = [str(number) for number in range(60)]


def photograph(brightness):
    buffer = io.BytesIO()
    Image.fromarray(np.full((64, 64, 3), brightness, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path):
    """An archive and its table: two photographs of each sender, and one without a class."""
    rows = [
        {"image": f"{sender}-{label}", "sender_id": sender, "label": label, "kids": "False"}
        for sender in SENDERS
        for label in ("Shirt", "Shoes")
    ]
    rows.append({"image": "unclear", "sender_id": "0", "label": "Not sure", "kids": "False"})
    archive, table = tmp_path / "clothing64.zip", tmp_path / "images.csv"
    with zipfile.ZipFile(archive, "w") as photographs:
        for row in rows:
            photographs.writestr(f"{row['image']}.jpg", photograph(50 if row["label"] == "Shirt" else 200))
    with table.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return archive, table


def test_all_photographs_of_a_sender_go_to_one_split(files, tmp_path):
    counts = lay_out(*files, tmp_path / "data")
    found = {
        split: {path.name.split("-")[0] for path in (tmp_path / "data" / split).glob("*/*.jpg")}
        for split in ("train", "test")
    }
    assert not found["train"] & found["test"]
    assert found["train"] | found["test"] == set(SENDERS)
    assert counts == {split: 2 * len(senders) for split, senders in found.items()}
    assert 0.03 < counts["test"] / sum(counts.values()) < 0.3
    assert not list((tmp_path / "data").glob("*/Not sure"))
    # Every machine splits alike.
    assert [split_of(sender) for sender in ("8", "9", "39")] == ["train", "test", "test"]


def test_the_folder_is_a_data_set(files, tmp_path):
    lay_out(*files, tmp_path / "data")
    loaded = load_dataset(f"folder:{tmp_path / 'data'}", 32)
    assert list(loaded.label_names.values()) == [("Shirt", "Shoes")]
    bright = loaded.images.float().mean(dim=(1, 2, 3)) > 128
    assert bool((bright == (loaded.labels[:, 0] == 1)).all())


def test_names_in_the_table_lead_nowhere_else(files, tmp_path):
    archive, table = files
    table.write_text(table.read_text(encoding="utf-8").replace("Shirt,", "../../Shirt,"), encoding="utf-8")
    with zipfile.ZipFile(archive, "a") as photographs:
        for sender in SENDERS:
            photographs.writestr(f"{sender}-../../Shirt.jpg", photograph(50))
    lay_out(archive, table, tmp_path / "data")
    written = {path.parent.parent.parent for path in tmp_path.rglob("*.jpg")}
    assert written == {tmp_path / "data"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda archive, table: archive.unlink(), "clothing64.zip: No such file"),
        (lambda archive, table: table.unlink(), "images.csv: No such file"),
        (lambda archive, table: archive.write_bytes(b"no archive"), "is not a zip archive, or damaged"),
        (lambda archive, table: table.write_text("image\n1\n"), "do not belong together"),
        (lambda archive, table: table.write_text("image,sender_id,label\nx,1,Shirt\n"), "do not belong together"),
    ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, damage, message):
    damage(*files)
    with pytest.raises(UserError, match=message) as caught:
        lay_out(*files, tmp_path / "data")
    assert "\n" not in str(caught.value)
    with pytest.raises(SystemExit) as ended:
        main([*map(str, files), str(tmp_path / "data")])
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_the_command_says_what_it_did_and_what_to_do_next(files, tmp_path, capsys):
    assert main([*map(str, files), str(tmp_path / "data")]) == 0
    out = capsys.readouterr().out
    assert "photographs for train" in out
    assert f"--data folder:{tmp_path / 'data'}" in out
