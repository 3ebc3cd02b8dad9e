"""What a round of `helpers.pairs` had to come to: by its plan, from its devices' uploads, as the papers say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from floe import weights
from floe.plan import Plan
from helpers import rules_reference as reference
from helpers.federation import Federation
from helpers.pairs import OPTIMIZERS, ROUNDS, Case
from helpers.rules_reference import Optimizer, Sent, Vector

MIXING, POWER = 0.6, 0.5
LEAST_CODED = 64  # elements: smaller tensors are neither coded nor rounded


class Judge:
    """Looks at a round after it has closed, before the next one opens. `bytes`: of all updates, by how they were sent;
    `late`: weights that came late, by device and the round that they are of.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.bytes: dict[str, list[int]] = {}
        self.late: dict[tuple[str, int], dict[str, weights.AnyArray]] = {}
        self._optimizer: Optimizer | None = None

    def check(self, case: Case, round_: int, devices: Sequence[str] = ()) -> None:
        """The round that was: of this plan, from these devices, and its model what the papers say."""
        (row,) = self.federation.query("SELECT * FROM rounds WHERE round = ? AND task = 'train'", round_)
        assert (row["state"], msgspec.json.decode(row["plan"], type=Plan)) == ("closed", case.plan), case.name
        found = self.federation.query(
            "SELECT * FROM updates WHERE task = 'train' AND merged = ? AND outcome = 'accepted' ORDER BY device, round",
            round_,
        )
        accepted = {update["device"] for update in found}
        assert accepted == set(devices) if devices else len(accepted) >= ROUNDS["fedbuff"]["quorum"], case.name
        private = [update["epsilon"] is not None for update in found]
        assert private == [case.privacy == "example"] * len(found), case.name
        assert (row["epsilon"] is not None) == (case.privacy == "device"), case.name
        self.bytes.setdefault(case.upload, []).extend(update["bytes"] for update in found)
        self._check_model(case, round_, found)

    def _check_model(self, case: Case, round_: int, found: Sequence[dict[str, Any]]) -> None:
        model, base = (weights.read(self.federation.model(number)) for number in (round_, round_ - 1))
        uploads = [self._upload(update) for update in found]
        names = sorted(uploads[0])
        assert {name for name in model if not name.startswith("scaling.")} == set(names), case.name
        sent = [self._as_sent(round_, update, upload) for update, upload in zip(found, uploads, strict=True)]
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
            self._check_tensor(f"{case.name}: {name} of round {round_}", case, array, wanted)

    def _check_tensor(self, what: str, case: Case, array: weights.AnyArray, wanted: Vector) -> None:
        if case.download == "float16" and array.size >= LEAST_CODED:
            half = array.astype(np.float16)
            np.testing.assert_array_equal(half.astype(np.float32), array, what)
            np.testing.assert_array_less(np.abs(array - wanted), np.abs(wanted) * 2.0**-10 + 2.0**-24, what)
        else:
            # Late updates are rebased to float32.
            np.testing.assert_allclose(array, wanted, rtol=3e-7, atol=1e-6 if case.rule == "fedbuff" else 1e-9,
                                       err_msg=what)  # fmt: skip

    def _as_sent(self, round_: int, update: dict[str, Any], upload: dict[str, weights.AnyArray]) -> Sent:
        behind, names = round_ - update["round"], sorted(upload)
        start = vector(weights.read(self.federation.model(update["round"] - 1)), names) if behind else None
        return Sent(vector(upload, names), update["samples"], behind, start)

    def _upload(self, update: dict[str, Any]) -> dict[str, weights.AnyArray]:
        kept = self.late.get((update["device"], update["round"]))
        return kept or self.federation.upload(update["device"])

    def _expected(self, case: Case, sent: Sequence[Sent], base: Vector) -> Vector:
        plan = case.plan
        before, self._optimizer = self._optimizer, None
        if plan.privacy == "device":
            return reference.clipped(base, sent, plan.clip_norm)
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


def vector(arrays: dict[str, weights.AnyArray], names: Sequence[str]) -> Vector:
    """Those tensors one after the other, in float64."""
    return np.concatenate([np.asarray(arrays[name], np.float64).ravel() for name in names])
