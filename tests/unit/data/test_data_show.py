"""`floe data show`: who holds what, in numbers, in marks, as a picture."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from edge_client.data import holdings, picture
from edge_client.data.holdings import Holding
from floe.cli import floe
from floe.errors import DataError

CIRCLE, RECT, TEXT = (f"{{http://www.w3.org/2000/svg}}{name}" for name in ("circle", "rect", "text"))


def labels(folder: Path, train: list[int], test: list[int]) -> None:
    folder.mkdir(parents=True)
    for part, y in (("train", train), ("test", test)):
        np.save(folder / f"{part}_y.npy", np.array(y))


def shown(found: list[Holding], width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    holdings.show(console, found)
    return console.export_text()


def run(*words: object) -> Result:
    return CliRunner().invoke(floe, [str(word) for word in words])


def test_devices_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("device-10", "device-2", "bank"):
        labels(tmp_path / name, [0, 2, 2], [1])
    (tmp_path / "notes").mkdir()
    found = holdings.read(tmp_path)
    assert [one.device for one in found] == ["bank", "device-2", "device-10"]
    assert (found[0].train, found[0].test, found[0].classes) == ((1, 0, 2), (0, 1), 2)


def test_the_bar_has_a_mark_for_each_part_of_a_class() -> None:
    lines = shown([Holding("a", (20, 0, 60), (5,)), Holding("b", (0, 20), (1,)), Holding("c", (1,), (1,))]).splitlines()
    first, second, third = (next(line for line in lines if line.strip().startswith(name)) for name in "abc")
    assert first.split() == ["a", "80", "5", "0" * 10 + "2" * 30, "0:20", "2:60"]
    assert second.split() == ["b", "20", "1", "1" * 10, "1:20"]
    assert third.split() == ["c", "1", "1", "0", "0:1"]  # a device with next to nothing is seen
    assert "3 devices, 101 training rows (1 to 80, median 20) and 7 test rows; classes each: 1 to 2" in lines[-1]


def test_of_many_devices_forty_are_shown_and_all_are_counted() -> None:
    text = shown([Holding(f"device-{number}", (10,), (1,)) for number in range(1, 101)])
    assert "device-40 " in text
    assert "device-41 " not in text
    assert "and 60 more devices" in text
    assert "100 devices, 1000 training rows" in text


def test_of_many_classes_the_largest_are_told() -> None:
    assert holdings.counts([*range(1, 15), 0]) == " ".join(f"{i}:{i + 1}" for i in range(2, 14)) + " and 2 more"


def test_more_classes_than_marks_are_a_plus() -> None:
    assert "zzz+++" in shown([Holding("a", (*[0] * 35, 3, 3), (1,))]).replace("z" * 20 + "+" * 20, "zzz+++")


def test_a_folder_without_devices_or_with_labels_out_of_range_is_refused(tmp_path: Path) -> None:
    assert "holds no feature folders" in str(run("data", "show", tmp_path).exception)
    labels(tmp_path / "a", [0, -1], [0])
    assert "train_y.npy: label -1 in row 1" in str(run("data", "show", tmp_path).exception)
    labels(tmp_path / "b", [0, 7], [0])
    (tmp_path / "a" / "train_y.npy").unlink()
    (tmp_path / "b" / "schema.json").write_text('{"version": 1, "schema": {"shape": [1], "classes": 7}}')
    with pytest.raises(DataError, match=r"train_y\.npy: label 7; by schema\.json they go from 0 to 6"):
        holdings.read(tmp_path)


def test_the_picture_has_a_disc_for_each_class_that_is_held() -> None:
    found = [Holding("a<b", (25, 0, 100), (1,)), Holding("c", (0, 25), (1,))]
    root = ElementTree.fromstring(picture.draw(found))
    radii = [float(disc.get("r", "")) for disc in root.iter(CIRCLE)]
    assert radii == [6.0, 12.0, 6.0]  # areas as 25 to 100
    widths = [float(bar.get("width", "")) for bar in root.iter(RECT)]
    assert widths == [120.0, 24.0]
    assert {"a<b", "c", "0", "1", "2", "125", "25"} <= {text.text for text in root.iter(TEXT)}


def test_the_picture_of_a_thousand_devices_is_no_taller_than_a_page() -> None:
    root = ElementTree.fromstring(picture.draw([Holding(f"d{i}", tuple([1] * 200), (1,)) for i in range(1000)]))
    width, height = map(float, root.get("viewBox", "").split()[2:])
    assert width < 1000
    assert height < 1100
    assert len(list(root.iter(TEXT))) < 20


def test_show_writes_the_picture_where_it_is_told(tmp_path: Path) -> None:
    labels(tmp_path / "in" / "a", [0, 1], [0])
    result = run("data", "show", tmp_path / "in", "--svg", tmp_path / "who.svg")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "who.svg").read_text() == picture.draw(holdings.read(tmp_path / "in"))
    assert "0:1 1:1" in result.output
