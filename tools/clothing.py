"""Lay out the clothing photographs as a folder that dcgan_lib can load, its splits by photographer.

    python tools/clothing.py clothing64.zip images.csv data/clothing

The photographs are Alexey Grigorev's clothing dataset (CC0 1.0), shrunk to 64 x 64 pixels: one JPEG for each row of the
table, whose columns are image, sender_id, label and kids. Many people sent many photographs each, of the same floor or
curtain, so a split by image would test on backgrounds that were trained on: all of a sender's go to one side.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
import zipfile
from pathlib import Path

from dcgan_lib.errors import UserError

NO_CLASS = {"Not sure", "Other", "Skip"}
TEST_SHARE = 7  # one sender in seven is kept for the test split: about one photograph in eight


def split_of(sender: str) -> str:
    """The split of all photographs of a sender."""
    digest = hashlib.sha256(sender.encode()).digest()
    return "test" if int.from_bytes(digest[:8], "big") < 2**64 // TEST_SHARE else "train"


def lay_out(archive: Path, table: Path, output: Path) -> dict[str, int]:
    """Write output/SPLIT/LABEL/IMAGE.jpg for every photograph with a class; return their number in each split.

    Raises:
        UserError: If a file is missing, is not what it should be, or cannot be written.
    """
    try:
        return _lay_out(archive, table, output)
    except OSError as error:
        raise UserError(f"{error.filename or output}: {error.strerror}") from error
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive} is not a zip archive, or damaged: get it again") from error
    except KeyError as error:
        raise UserError(f"{table} and {archive} do not belong together ({error.args[0]})") from error


def _lay_out(archive: Path, table: Path, output: Path) -> dict[str, int]:
    with table.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["label"] not in NO_CLASS]
    counts = {"train": 0, "test": 0}
    with zipfile.ZipFile(archive) as photographs:
        for row in rows:
            split = split_of(row["sender_id"])
            folder = output / split / Path(row["label"]).name
            folder.mkdir(parents=True, exist_ok=True)
            # Names come from the table, without folders, so nothing is written elsewhere.
            (folder / f"{Path(row['image']).name}.jpg").write_bytes(photographs.read(f"{row['image']}.jpg"))
            counts[split] += 1
    return counts


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path, help="clothing64.zip")
    parser.add_argument("table", type=Path, help="images.csv")
    parser.add_argument("output", type=Path, help="the folder to make")
    options = parser.parse_args(arguments)
    try:
        counts = lay_out(options.archive, options.table, options.output)
    except UserError as error:
        parser.error(str(error))
    for split, count in counts.items():
        print(f"{count:,} photographs for {split}")
    print(f"train on them with --data folder:{options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
