"""Rounds with noise for devices: the account in the log, the norm over rounds and kills, the end of the budget."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers.chain import INIT, ROUNDS, TRAIN, accept, started
from helpers.killed import Killed

from aggregator.chain import Chain
from aggregator.control import Control
from aggregator.log import Log
from aggregator.states import State
from floe import weights
from floe.accounting import epsilon_of
from floe.errors import ConfigError, KeyFileError, RuleError
from floe.messages import Phase
from floe.plan import Plan
from ui.queries.standing import spent

PLAN = Plan(scaling="none", privacy="device", noise_multiplier=1.0, clip_norm=0.5, clip_quantile=0.5)
FIXED = msgspec.structs.replace(PLAN, clip_quantile=0.0)


def train(number: int) -> Phase:
    return msgspec.structs.replace(TRAIN, round=number)


@contextmanager
def begun(folder: Path, plan: Plan = PLAN) -> Iterator[tuple[Chain, Log]]:
    with started(folder, plan=plan) as (chain, _, log):
        if chain.model is None:
            chain.open(State(INIT, stage="open", expected=frozenset("ab")))
            accept(chain, log, INIT, "a", w=np.zeros(50, np.float32))
            chain.close(INIT, up=0, down=0)
        yield chain, log


def sent(chain: Chain, log: Log, number: int, plan: Plan = PLAN) -> None:
    chain.open(State(train(number), stage="open", plan=plan, expected=frozenset("ab")))
    assert chain.model
    at = weights.read(chain.model.path)["w"]
    for device, off in (("a", 0.01), ("b", 100.0)):
        accept(chain, log, train(number), device, w=(at + off).astype(np.float32))


def round_(chain: Chain, log: Log, number: int, plan: Plan = PLAN) -> dict[str, Any]:
    sent(chain, log, number, plan)
    chain.close(train(number), up=0, down=0)
    row = log.round(train(number))
    assert row
    return row


def of(chain: Chain) -> bytes:
    assert chain.model
    return chain.model.path.read_bytes()


def test_a_round_says_what_it_and_all_before_it_have_spent(tmp_path: Path) -> None:
    with begun(tmp_path, FIXED) as (chain, log):
        rows = [round_(chain, log, number, FIXED) for number in (1, 2, 3)]
    assert [row["epsilon"] for row in rows] == pytest.approx([epsilon_of([1.0] * k, 1e-5) for k in (1, 2, 3)])
    assert {(row["delta"], row["accountant"], row["clip_norm"]) for row in rows} == {(1e-5, "gaussian", 0.5)}


def test_no_device_moves_the_model_by_more_than_the_norm_and_its_noise(tmp_path: Path) -> None:
    quiet = msgspec.structs.replace(FIXED, noise_multiplier=1e-3)
    with begun(tmp_path, quiet) as (chain, log):
        round_(chain, log, 1, quiet)
        assert chain.model
        moved = weights.read(chain.model.path)["w"]
    assert np.linalg.norm(moved) == pytest.approx((0.01 * 50**0.5 + 0.5) / 2, rel=0.05)


def test_shares_tell_nothing_of_norms(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1)
        assert [update["weight"] for update in log.ended(train(1))] == [0.5, 0.5]


def killed(*_: object, **__: object) -> None:
    raise Killed


def test_a_round_that_is_closed_again_after_a_kill_publishes_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1)
        sent(chain, log, 2)
        with monkeypatch.context() as broken:
            broken.setattr(log, "close_round", killed)
            with pytest.raises(Killed):
                chain.close(train(2), up=0, down=0)
        left = chain._registry.path(train(2)).read_bytes()
    with begun(tmp_path) as (chain, log):
        chain.close(train(2), up=0, down=0)
        assert of(chain) == left
        first = [row["clip_norm"] for row in log.db.query("SELECT clip_norm FROM rounds WHERE task = 'train'")]
    assert first[0] == 0.5 != first[1]


def test_the_norm_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    with begun(tmp_path / "a") as (chain, log):
        round_(chain, log, 1)
    key = tmp_path / "a" / "state" / "aggregator-main" / "privacy" / "noise.key"
    with begun(tmp_path / "a") as (chain, log):
        again = round_(chain, log, 2)["clip_norm"]
        base = chain.model
        assert base
        norm = chain._privacy._norm(PLAN, base)
    assert again != 0.5
    assert norm != again
    assert key.stat().st_mode & 0o077 == 0


def test_a_norm_that_begins_anew_is_an_event(tmp_path: Path) -> None:
    """As after an operator has chosen another model: only the present one's is kept, and its base's."""
    with begun(tmp_path) as (chain, log):
        first = chain.model
        assert first
        for number in (1, 2):
            round_(chain, log, number)
        chain.model = first
        assert round_(chain, log, 3)["clip_norm"] == 0.5
        told = [row["text"] for row in log.db.query("SELECT text FROM events WHERE kind = 'optimizer' ORDER BY id")]
    assert told == [f"clip_norm begins at 0.5: model 0 ({first.sha256[:12]}) came with none"] * 2


def test_other_updates_in_the_same_round_have_other_noise(tmp_path: Path) -> None:
    """Else what two models of one round differ by would have no noise."""
    with begun(tmp_path, FIXED) as (chain, _):
        assert chain.model
        secrets = [
            chain._privacy._secret(train(1), chain.model, [_Named(name)])  # type: ignore[list-item]
            for name in ("x", "y", "x")
        ]
    assert secrets[0] == secrets[2] != secrets[1]


class _Named:
    def __init__(self, transfer: str) -> None:
        self.transfer = transfer


def test_rounds_end_before_one_that_would_exceed_the_budget(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(FIXED, epsilon=7.0)  # one round costs 4.4, two 6.6
    with begun(tmp_path, plan) as (chain, log):
        reasons = []
        for number in (1, 2):
            round_(chain, log, number, plan)
            reasons.append(chain.enough(train(number), Control()))
        assert reasons[0] == ""
        assert reasons[1].startswith("privacy budget spent: epsilon 8.")
        sent(chain, log, 3, plan)  # were it opened all the same
        with pytest.raises(RuleError, match="privacy budget spent"):
            chain.close(train(3), up=0, down=0)
        chain.void(train(3), "privacy budget spent")
        assert chain.enough(train(3), Control()).startswith("privacy budget spent")


def test_a_start_of_the_process_sees_what_the_log_has_spent(tmp_path: Path) -> None:
    """Also where an operator has asked for more rounds before."""
    plan = msgspec.structs.replace(FIXED, epsilon=5.0)
    with begun(tmp_path, plan) as (chain, log):
        round_(chain, log, 1, plan)
    with started(tmp_path, plan=plan) as (chain, _, _):
        state = chain.restore(0.0, Control(last=99, count=ROUNDS.count))
    assert (state.phase.task, state.phase.round) == ("evaluate", 1)


def test_what_was_spent_is_told_after_a_round_that_spent_nothing_too(tmp_path: Path) -> None:
    with begun(tmp_path, FIXED) as (chain, log):
        round_(chain, log, 1, FIXED)
        before = spent(log.db.conn, "main")
        sent(chain, log, 2, FIXED)
        chain.void(train(2), "a fault")
        assert spent(log.db.conn, "main") == before
        assert before
        assert before.epsilon == epsilon_of([1.0], 1e-5)


def test_a_new_epoch_does_not_begin_the_account_anew(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(FIXED, epsilon=4.5)
    with begun(tmp_path, plan) as (chain, log):
        round_(chain, log, 1, plan)
        chain.void(Phase("main", 1, 0, "init"))
    with pytest.raises(ConfigError, match="no round can open: privacy budget spent"), started(tmp_path, plan=plan):
        pass


def test_a_key_of_another_size_is_refused(tmp_path: Path) -> None:
    with begun(tmp_path) as (chain, log):
        round_(chain, log, 1)
        key = tmp_path / "state" / "aggregator-main" / "privacy" / "noise.key"
        key.write_bytes(b"short")
        sent(chain, log, 2)
        with pytest.raises(KeyFileError, match="5 bytes, 32 are needed"):
            chain.close(train(2), up=0, down=0)
