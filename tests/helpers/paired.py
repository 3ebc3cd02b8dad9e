"""A running federation of `helpers.pairs`: it goes from rule to rule by `floe` commands. `helpers.judged` judges."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
from click.testing import CliRunner

from floe import weights
from floe.cli import floe
from floe.files import hash_of
from helpers.federation import Federation
from helpers.gated import GATE
from helpers.judged import Judge
from helpers.pairs import DEVICES, ROUNDS, Case, Setup
from helpers.sites import divided

PATIENCE_S = 200.0  # five devices import torch, and what private training needs
SET = (
    *("rule", "mu", "server_learning_rate", "byzantine", "keep", "clip_norm", "privacy", "noise_multiplier"),
    *("upload", "download", "threshold"),
)


class Paired:
    """A running federation that goes from rule to rule, and how far it is."""

    def __init__(self, federation: Federation, setup: Setup, first: Case) -> None:
        self.federation = federation
        self.setup = setup
        found = divided(federation.folder, setup.partition)
        assert len(found) == DEVICES
        self.devices = found if len(setup.rules) > 2 else found[:2]
        self.round = 0
        self.judge = Judge(federation)
        self._configure(first)
        self.floe("key", "operator", "opa")
        self._aggregator = federation.aggregator()
        for device in self.devices:
            data = ("--data", f"features/{device}")
            env = {GATE: str(self._gate(device))}
            federation.start(device, "client", "--id", device, *data, env=env)

    def floe(self, *arguments: str) -> str:
        """A command of the operator that is followed."""
        result = CliRunner().invoke(floe, [*arguments, "--config", str(self.federation.folder / "floe.toml")])
        assert result.exit_code == 0, f"{arguments}: {result.output}\n{self.federation.said()}"
        return result.output

    def go(self, case: Case) -> None:
        """The rounds of one case, after those before: begun, ended, and checked."""
        if case.rule in ROUNDS:
            self._begin_anew(case)
            (self._late if case.rule == "fedbuff" else self._at_once)(case)
            return
        if self.round:
            self._set(case)
            self.floe("round", "start", "--rounds", "1")
        self.round += 1
        self._measured()
        self.judge.check(case, self.round, self.devices)

    def _late(self, case: Case) -> None:
        """One device comes a round late, and is merged there."""
        *quick, slow = self.devices
        first, second = self.round + 1, self.round + 2
        self._open_gated(first)
        self._release(quick)
        self._closed(first)
        self.round = first
        self.judge.check(case, self.round, quick)
        self._hold(quick)
        self.floe("round", "resume")
        self._opened(second)
        self._release([slow])
        self.federation.until(
            "SELECT * FROM updates WHERE device = ? AND round = ? AND merged = ? AND outcome = 'accepted'",
            slow, first, second, timeout_s=PATIENCE_S,
        )  # fmt: skip
        (spooled,) = self.federation.folder.glob(f"state/*/spool/1-{second}-train/{slow}@{first}.safetensors")
        self.judge.late[slow, first] = weights.read(spooled)
        self._release(quick)
        self.round = second
        self._measured()
        self.judge.check(case, self.round)  # whichever four were first, and what came late

    def _at_once(self, case: Case) -> None:
        """One device makes a model, the next is then a round behind and makes another."""
        quick, slow, *others = self.devices
        first, second = self.round + 1, self.round + 2
        self._open_gated(first)
        self._release([quick])
        self._closed(first)
        self.round = first
        self.judge.check(case, self.round, [quick])
        self._hold([quick])
        self.floe("round", "resume")
        self._opened(second)
        self._release([slow])
        self._closed(second)
        self.round = second
        self.judge.check(case, self.round, [slow])
        self._release([quick, *others])
        self._measured()

    def _open_gated(self, round_: int) -> None:
        self._hold(self.devices)
        self.floe("round", "start", "--rounds", "2")
        self._opened(round_)
        self.floe("round", "pause")

    def _begin_anew(self, case: Case) -> None:
        """[rounds] is the configuration's: the aggregator goes on from where it was with another."""
        self._aggregator.interrupt()
        self._configure(case)
        self._aggregator = self.federation.aggregator()
        self.federation.wait(self._all_online, "all devices are online")
        self._set(case)  # a plan that was set counts, where floe.toml has the one again that it was set over

    def _all_online(self) -> bool:
        return bool(json.loads(self.floe("round", "status", "--json"))["online"] == len(self.devices))

    def _configure(self, case: Case) -> None:
        self.federation.configure(
            {
                "rounds": {"count": 1, "devices": len(self.devices), **ROUNDS.get(case.rule, {})},
                "plan": msgspec.to_builtins(case.plan),
                "trainers": {"plain": "helpers.gated:Plain"},
                "models": {name: f"helpers.gated:{name}" for name in ("autoencoder", "mlp")},
            }
        )

    def _set(self, case: Case) -> None:
        self.floe("plan", "set", *(f"{key}={getattr(case.plan, key)}" for key in SET))

    def _gate(self, device: str) -> Path:
        return self.federation.folder / f"gate-{device}"

    def _hold(self, devices: Sequence[str]) -> None:
        for device in devices:
            self._gate(device).touch()

    def _release(self, devices: Sequence[str]) -> None:
        for device in devices:
            self._gate(device).unlink()

    def _opened(self, round_: int) -> None:
        self._until("train", "open", round_)

    def _closed(self, round_: int) -> None:
        self._until("train", "closed", round_)
        spool = self.federation.folder.glob
        self.federation.wait(lambda: not [*spool(f"state/*/spool/1-{round_}-train")], "uploads are in their place")

    def _measured(self) -> None:
        self._until("evaluate", "closed", self.round)

    def _until(self, task: str, state: str, round_: int) -> None:
        sql = "SELECT * FROM rounds WHERE round = ? AND task = ? AND state = ?"
        self.federation.until(sql, round_, task, state, timeout_s=PATIENCE_S)

    def held_by(self, device: str) -> str:
        """The SHA-256 of the global model that a device has."""
        path = self.federation.folder / "state" / f"device-{device}" / "base.safetensors"
        return hash_of(path) if path.exists() else ""
