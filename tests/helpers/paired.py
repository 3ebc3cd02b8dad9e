"""A federation of `helpers.pairs`: real data split by `floe data split`, real devices, rounds by `floe` commands; and
what each of its rounds had to come to.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from click.testing import CliRunner

from edge_client.data import folder as feature_folder
from edge_client.data.document import Document
from edge_client.data.features import Features
from floe import weights
from floe.cli import floe
from floe.files import hash_of
from floe.plan import Plan
from floe.schema import Schema
from helpers import rules_reference as reference
from helpers.federation import Federation
from helpers.gated import GATE
from helpers.pairs import DEVICES, OPTIMIZERS, ROUNDS, Case, Setup
from helpers.rules_reference import Optimizer, Sent, Vector

COLUMNS = ("site", "b", "c", "d", "e", "f", "g", "h")
TRAIN, TEST = 200, 60
OPTIONS = {"column": ("--by", "site")}
FILES = ("Boiler Room", "line-7", "Halle_3", "sensor.2024", "Küche")
MIXING, POWER = 0.6, 0.5
PATIENCE_S = 200.0  # five devices import torch, and what private training needs
LEAST_CODED = 64  # elements: smaller tensors are neither coded nor rounded
SET = (
    *("rule", "mu", "server_learning_rate", "byzantine", "keep", "clip_norm", "privacy", "noise_multiplier"),
    *("upload", "download", "threshold"),
)


def rows(site: int | None, seed: int) -> Features:
    """Two classes apart from each other, at five sites, or all at one."""
    rng = np.random.default_rng(seed)
    count = TRAIN + TEST if site is None else (TRAIN + TEST) // DEVICES
    y = np.arange(count) % 2
    x = (rng.normal(size=(count, len(COLUMNS))) + y[:, None]).astype(np.float32)
    x[:, 0] = np.arange(count) // 2 % DEVICES if site is None else site
    train = count * TRAIN // (TRAIN + TEST)
    return Features(x[:train], y[:train], x[train:], y[train:], Schema((len(COLUMNS),), 2, COLUMNS))


def divided(root: Path, partition: str) -> list[str]:
    """Write data to `root`, have it divided into `root/features`; the devices."""
    source, natural = root / "source", partition == "natural"
    if natural:
        source.mkdir()
        for site, name in enumerate(FILES):
            part = rows(site, site)
            arrays = {key: getattr(part, key) for key in ("train_x", "train_y", "test_x", "test_y")}
            np.savez(source / f"{name}.npz", **arrays)
    else:
        whole = rows(None, 0)
        feature_folder.write(source, whole, Document(schema=whole.schema))
    clients = () if natural else ("--clients", str(DEVICES))
    told = ("--data", str(source), "--out", str(root / "features"), "--partition", partition)
    result = CliRunner().invoke(floe, ["data", "split", *told, *clients, *OPTIONS.get(partition, ())])
    assert result.exit_code == 0, result.output
    return sorted(path.name for path in (root / "features").iterdir())


class Paired:
    """A running federation that goes from rule to rule, and how far it is."""

    def __init__(self, federation: Federation, setup: Setup, first: Case) -> None:
        self.federation = federation
        self.setup = setup
        found = divided(federation.folder, setup.partition)
        assert len(found) == DEVICES
        self.devices = found if len(setup.rules) > 2 else found[:2]
        self.round = 0
        self._optimizer: Optimizer | None = None
        self._sent: dict[tuple[str, int], dict[str, weights.AnyArray]] = {}
        self.bytes: dict[str, list[int]] = {}
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
        self._check(case, self.devices)

    def _late(self, case: Case) -> None:
        """One device comes a round late, and is merged there."""
        *quick, slow = self.devices
        first, second = self.round + 1, self.round + 2
        self._open_gated(first)
        self._release(quick)
        self._closed(first)
        self.round = first
        self._check(case, quick)
        self._hold(quick)
        self.floe("round", "resume")
        self._opened(second)
        self._release([slow])
        self.federation.until(
            "SELECT * FROM updates WHERE device = ? AND round = ? AND merged = ? AND outcome = 'accepted'",
            slow, first, second, timeout_s=PATIENCE_S,
        )  # fmt: skip
        (spooled,) = self.federation.folder.glob(f"state/*/spool/1-{second}-train/{slow}@{first}.safetensors")
        self._sent[slow, first] = weights.read(spooled)
        self._release(quick)
        self.round = second
        self._measured()
        self._check(case)  # whichever four were first, and what came late

    def _at_once(self, case: Case) -> None:
        """One device makes a model, the next is then a round behind and makes another."""
        quick, slow, *others = self.devices
        first, second = self.round + 1, self.round + 2
        self._open_gated(first)
        self._release([quick])
        self._closed(first)
        self.round = first
        self._check(case, [quick])
        self._hold([quick])
        self.floe("round", "resume")
        self._opened(second)
        self._release([slow])
        self._closed(second)
        self.round = second
        self._check(case, [slow])
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

    def _check(self, case: Case, devices: Sequence[str] = ()) -> None:
        """The round that was: of this plan, from these devices, and its model what the papers say."""
        (row,) = self.federation.query("SELECT * FROM rounds WHERE round = ? AND task = 'train'", self.round)
        assert (row["state"], msgspec.json.decode(row["plan"], type=Plan)) == ("closed", case.plan), case.name
        found = self.federation.query(
            "SELECT * FROM updates WHERE task = 'train' AND merged = ? AND outcome = 'accepted' ORDER BY device, round",
            self.round,
        )
        accepted = {update["device"] for update in found}
        assert accepted == set(devices) if devices else len(accepted) >= ROUNDS["fedbuff"]["quorum"], case.name
        private = [update["epsilon"] is not None for update in found]
        assert private == [case.privacy == "example"] * len(found), case.name
        assert (row["epsilon"] is not None) == (case.privacy == "device"), case.name
        self.bytes.setdefault(case.upload, []).extend(update["bytes"] for update in found)
        self._check_model(case, found)

    def _check_model(self, case: Case, found: Sequence[dict[str, Any]]) -> None:
        model, base = (weights.read(self.federation.model(number)) for number in (self.round, self.round - 1))
        uploads = [self._upload(update) for update in found]
        names = sorted(uploads[0])
        assert {name for name in model if not name.startswith("scaling.")} == set(names), case.name
        sent = [self._as_sent(update, upload) for update, upload in zip(found, uploads, strict=True)]
        expected, start = self._expected(case, sent, vector(base, names)), 0
        if case.privacy == "device":
            noise = (vector(model, names) - expected) * len(sent) / case.plan.clip_norm
            spread = 6 / np.sqrt(2 * len(noise))
            assert abs(noise.std() - case.plan.noise_multiplier) < spread + 0.01, case.name
            assert abs(noise.mean()) < 6 / np.sqrt(len(noise)), case.name
            return
        for name in names:
            array = model[name]
            wanted = expected[start : start + array.size].reshape(array.shape)
            start += array.size
            self._check_tensor(f"{case.name}: {name} of round {self.round}", case, array, wanted)

    def _check_tensor(self, what: str, case: Case, array: weights.AnyArray, wanted: Vector) -> None:
        if case.download == "float16" and array.size >= LEAST_CODED:
            half = array.astype(np.float16)
            np.testing.assert_array_equal(half.astype(np.float32), array, what)
            np.testing.assert_array_less(np.abs(array - wanted), np.abs(wanted) * 2.0**-10 + 2.0**-24, what)
        else:
            # Late updates are rebased to float32.
            np.testing.assert_allclose(array, wanted, rtol=3e-7, atol=1e-6 if case.rule == "fedbuff" else 1e-9,
                                       err_msg=what)  # fmt: skip

    def _as_sent(self, update: dict[str, Any], upload: dict[str, weights.AnyArray]) -> Sent:
        behind, names = self.round - update["round"], sorted(upload)
        start = vector(weights.read(self.federation.model(update["round"] - 1)), names) if behind else None
        return Sent(vector(upload, names), update["samples"], behind, start)

    def _upload(self, update: dict[str, Any]) -> dict[str, weights.AnyArray]:
        kept = self._sent.get((update["device"], update["round"]))
        return kept or self.federation.upload(update["device"])

    def _expected(self, case: Case, sent: Sequence[Sent], base: Vector) -> Vector:
        plan = case.plan
        before, self._optimizer = self._optimizer, None
        if plan.privacy == "device":
            return reference.noiseless(base, sent, plan.clip_norm)
        if case.rule == "fedasync":
            (one,) = sent
            return reference.mixed(base, one, MIXING, POWER)
        if case.rule in OPTIMIZERS:
            if before is None or before.rule != case.rule:
                before = Optimizer.new(case.rule, len(base), plan.server_tau)
            made, self._optimizer = before.step(
                base, sent, plan.server_learning_rate, plan.server_momentum, plan.server_beta2, plan.server_tau
            )
            return made
        if case.rule == "median":
            return reference.median(sent)
        if case.rule == "trimmed-mean":
            return reference.trimmed(sent, plan.byzantine)
        if case.rule in ("krum", "multi-krum"):
            return reference.krum(sent, plan.byzantine, plan.keep or 1)
        if case.rule == "norm-clipping":
            assert any(np.linalg.norm(one.vector - base) > plan.clip_norm for one in sent), f"{case.name}: nothing cut"
            return reference.clipped(base, sent, plan.clip_norm)
        return reference.mean(base, sent, POWER)

    def held_by(self, device: str) -> str:
        """The SHA-256 of the global model that a device has."""
        path = self.federation.folder / "state" / f"device-{device}" / "base.safetensors"
        return hash_of(path) if path.exists() else ""


def vector(arrays: dict[str, weights.AnyArray], names: Sequence[str]) -> Vector:
    """Those tensors one after the other, in float64."""
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in names])
