"""The simulation's part of `floe check`: what its devices keep, each as a device alone keeps it. Reads."""

from __future__ import annotations

from edge_client.check import check_local
from floe.findings import Findings
from floe.settings import Config
from simulate.federation import DEVICES


def check(config: Config, name: str, found: Findings) -> None:
    """The ledger, the local models and what rounding took, of every device that was simulated for one lineage."""
    folder = config.path(config.paths.state) / f"aggregator-{name}" / DEVICES
    for local in found.files_in(folder):
        check_local(local, found)
