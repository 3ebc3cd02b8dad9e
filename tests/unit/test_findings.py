"""What `floe check` takes as damage beside a process that replaces and removes its files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from floe.findings import Findings


@pytest.mark.parametrize(
    ("meanwhile", "damaged"),
    [
        (lambda path: None, 1),
        (lambda path: path.unlink(), 0),
        (lambda path: (path.with_name("next").write_bytes(b"x"), path.with_name("next").replace(path)), 0),
        (lambda path: (path.unlink(), path.mkdir()), 0),
    ],
    ids=["stays", "removed", "replaced", "becomes a folder"],
)
def test_only_what_stays_as_it_was_looked_at_is_damaged(
    tmp_path: Path, meanwhile: Callable[[Path], object], damaged: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")

    def fault_of(path: Path) -> str:
        meanwhile(path)
        return "broken"

    found = Findings()
    found.look_into(path, "file", fault_of, "mend it")
    assert (found.damaged, found.checked["file"]) == (damaged, 1)


def test_what_is_whole_and_what_is_not_there_is_no_finding(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = Findings()
    for name in ("file", "none"):
        found.look_into(tmp_path / name, "file", lambda path: "", "mend it")
    assert (found.all, found.checked["file"]) == ([], 1)


def test_what_was_set_aside_is_noted_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "spool/1/a.damaged-2").mkdir(parents=True)
    (tmp_path / "b.damaged").touch()
    (tmp_path / "spool/well").touch()
    found = Findings()
    found.set_aside(tmp_path)
    found.set_aside(tmp_path / "none")
    assert [finding.place for finding in found.all] == [f"{tmp_path}/b.damaged", f"{tmp_path}/spool/1/a.damaged-2"]
