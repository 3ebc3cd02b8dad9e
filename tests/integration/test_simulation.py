"""`floe simulate` gives the global models of a federation over a broker: the same SHA-256, round for round."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.federation import Federation, Sections

CLIENTS = ("a", "b", "c")
ROWS = {"a": 41, "b": 53, "c": 17}
TORCH: Sections = {
    "plan": {"model": "mlp", "epochs": 2, "batch_size": 10, "optimizer": "sgd", "scaling": "standard", "seed": 3}
}
SELECTED: Sections = {"rounds": {"fraction": 0.67}}
PERSONAL: Sections = {"plan": {"personal": ["bias"], "threshold": "federated"}}


def _configured(federation: Federation, sections: Sections) -> None:
    merged = {**sections, "rounds": {"count": 3, "devices": 3, **sections.get("rounds", {})}}
    federation.configure(merged)
    for device in CLIENTS:
        federation.features(device, rows=ROWS[device])


@pytest.mark.parametrize(
    "sections",
    [TORCH, {**TORCH, **SELECTED}, SELECTED, PERSONAL],
    ids=["all", "a fraction", "a trainer of one's own", "personal layers and one threshold"],
)
def test_a_simulation_gives_the_models_of_the_real_federation(
    federation: Federation, tmp_path: Path, sections: Sections
) -> None:
    _configured(federation, sections)
    federation.aggregator()
    for device in CLIENTS:
        federation.client(device)
    federation.finish()
    simulated = Federation(tmp_path / "simulated", federation.port, secret=False)
    _configured(simulated, sections)
    simulated.start("simulate", "simulate").wait()
    simulated.close()
    models = federation.models()
    assert sorted(models) == [0, 1, 2, 3]
    assert simulated.models() == models
    sql = "SELECT round, task, expected, bar, threshold FROM rounds ORDER BY round, task"
    assert simulated.query(sql) == federation.query(sql)
