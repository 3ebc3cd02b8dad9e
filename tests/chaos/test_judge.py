"""The judge of a chaos run finds what it is there to find: each test spoils one thing of a run in which all is well."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from chaos.judge import Journal, Judgement, judge, read_weights, sha256, weights_file
from safetensors.numpy import load

from aggregator.log import Log, Outcome
from aggregator.results import Spooled, first_model, global_model
from floe import weights
from floe.files import hash_of
from floe.messages import Phase
from floe.plan import Plan
from floe.report import Metrics, Report
from floe.schema import Schema

SCHEMA = Schema((2,), 2, ("a", "b")).to_json()
DEVICES = ("d1", "d10", "d2")
ROUNDS = (1, 2)


class Case:
    """Two rounds of three devices, by Floe's own writers; and what the judge says of it."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal")
        self.log = folder / "log" / "floe.sqlite"
        self.models = folder / "models"
        self.models.mkdir()
        self.journal.folder.mkdir()
        dice = np.random.default_rng(5)
        weights.write(folder / "first", self._some(dice))
        weights.write(folder / "scaling", {"scaling.mean": dice.normal(size=2), "scaling.scale": dice.normal(size=2)})
        first_model(folder / "first", folder / "scaling", Schema.from_json(SCHEMA), self.model(0))
        log = Log(self.log.parent)
        for round_ in ROUNDS:
            phase, spooled = Phase("main", 1, round_, "train"), []
            log.open_round(phase, None, Plan(), "f" * 16, list(DEVICES))
            for index, device in enumerate(DEVICES):
                path, arrays = folder / f"{device}-{round_}", self._some(dice)
                weights.write(path, arrays, {"schema": SCHEMA})
                self.journal.add(device, round_, 10 + 3 * index, arrays, SCHEMA)
                spooled.append(Spooled(device, path, 10 + 3 * index))
                ended = Outcome(f"{device}-{round_}", device, phase, "accepted", "", "")
                report = Report(samples=10, before=Metrics(loss=0.1, accuracy=1.0))
                log.update(ended, report, bytes_=1, sha256=hash_of(path), suite="plaintext")
            global_model(Plan(), spooled, self.model(round_ - 1), self.model(round_))
            row = dict.fromkeys(("lineage", "file", "signature"), "main") | {
                **{"epoch": 1, "round": round_, "sha256": hash_of(self.model(round_))},
                **{"bytes": 1, "devices": 3, "samples": 1},
            }
            log.close_round(phase, up=0, down=0, model=row)
        log.close()

    def model(self, round_: int) -> Path:
        return self.models / f"{round_}.safetensors"

    def sql(self, text: str) -> None:
        with sqlite3.connect(self.log) as db:
            assert db.execute(text).rowcount == 1
        db.close()

    def judged(self) -> Judgement:
        return judge(self.journal, self.log, self.models, len(DEVICES))

    def _some(self, dice: np.random.Generator) -> dict[str, weights.AnyArray]:
        return {"w": dice.normal(size=(3, 50)).astype(np.float32), "b": dice.normal(size=3), "n": np.array([7])}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_the_judge_acquits_a_run_in_which_all_is_well(case: Case) -> None:
    assert case.judged() == Judgement(wrong=[], made=6, accepted=6, otherwise=0, models=2)


def test_the_judges_writer_is_its_own_and_writes_what_others_read() -> None:
    arrays = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.array([2.5])}
    content = weights_file(arrays, SCHEMA)
    read, schema = read_weights(content)
    assert schema == SCHEMA
    for found in (read, load(content)):
        assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in arrays.items()}
    text = (Path(__file__).parent / "judge.py").read_text()
    assert "floe" not in [line.split()[1].split(".")[0] for line in text.splitlines() if line[:5] in ("from ", "impor")]


def test_an_update_that_is_not_in_the_log_is_lost(case: Case) -> None:
    case.sql("DELETE FROM updates WHERE device = 'd10' AND round = 2")
    [wrong] = case.judged().wrong
    assert wrong.startswith("update of d10 in round 2")
    assert wrong.endswith("outcomes: none")


def test_an_update_that_is_twice_in_the_log_is_counted_twice(case: Case) -> None:
    columns = "device, lineage, epoch, round, task, outcome, reason, detail, bytes, sha256, suite, time"
    case.sql(
        f"INSERT INTO updates (transfer, {columns}) SELECT 'again', {columns} FROM updates "
        "WHERE device = 'd1' AND round = 1"
    )
    wrong = case.judged().wrong
    assert any("outcomes: accepted, accepted" in text for text in wrong)
    assert "accepted 2 times: d1, train 1" in wrong


def test_an_update_that_is_not_in_the_journal_was_never_made(case: Case) -> None:
    lines = case.journal.lines.read_text().splitlines(keepends=True)
    case.journal.lines.write_text("".join(lines[1:]))
    wrong = case.judged().wrong
    assert any(text.startswith("accepted, and never made: d1, round 1") for text in wrong)
    assert "model 1 was made without all: of d10, d2" in wrong


def test_an_update_that_a_device_made_twice_alike_is_one_and_otherwise_two(case: Case) -> None:
    lines = case.journal.lines.read_text().splitlines(keepends=True)
    case.journal.lines.write_text("".join([*lines, lines[0]]))
    assert case.judged().wrong == []
    arrays = {"w": np.ones((3, 50), np.float32), "b": np.ones(3), "n": np.array([7])}
    case.journal.add("d1", 1, 10, arrays, SCHEMA)
    assert any("update of d1 in round 1" in text and text.endswith("none") for text in case.judged().wrong)


def test_a_refusal_counts_as_an_outcome_and_needs_a_reason(case: Case) -> None:
    case.sql("UPDATE updates SET outcome = 'late', sha256 = NULL, reason = 'closed' WHERE device = 'd2' AND round = 2")
    assert case.judged() == Judgement(wrong=[], made=6, accepted=5, otherwise=1, models=2)
    case.sql("UPDATE updates SET reason = '' WHERE device = 'd2' AND round = 2")
    assert case.judged().wrong == ["late without a reason: d2, round 2"]


def test_a_round_that_is_still_open_hung(case: Case) -> None:
    case.sql("UPDATE rounds SET state = 'open' WHERE round = 2")
    assert case.judged().wrong == ["round train 2 hung: it is still open"]


@pytest.mark.parametrize("what", ["weight", "update", "model"])
def test_a_model_that_is_not_the_mean_of_the_journal_is_found_to_the_last_bit(case: Case, what: str) -> None:
    lines = [json.loads(line) for line in case.journal.lines.read_text().splitlines()]
    if what == "weight":
        lines[3]["samples"] += 1
    elif what == "update":
        arrays, schema = read_weights((case.journal.folder / lines[3]["sha256"]).read_bytes())
        changed = weights_file({**arrays, "w": np.nextafter(arrays["w"], np.float32(9))}, schema)
        (case.journal.folder / sha256(changed)).write_bytes(changed)
        case.sql(f"UPDATE updates SET sha256 = '{sha256(changed)}' WHERE device = 'd1' AND round = 2")
        lines[3]["sha256"] = sha256(changed)
    else:
        content = bytearray(case.model(2).read_bytes())
        content[-1] ^= 1
        case.model(2).write_bytes(content)
    case.journal.lines.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    [wrong] = case.judged().wrong
    assert wrong.startswith("model 2: log ")
