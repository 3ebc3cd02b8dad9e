"""What a device gets in at the broker with: made here, certified by the aggregator, fetched with the roster."""

from __future__ import annotations

from pathlib import Path

from edge_client.membership import Membership
from floe.papers import Papers


def papers_of(state: Path, device: str) -> Papers:
    """A device's, in a folder that a change of its signing keys leaves as it is."""
    return Papers(state / "access", f"device.{device}")


def take_papers(papers: Papers, membership: Membership) -> bool:
    """Keep the authority that the roster's head names, and the certificate of our entry; whether one is news.

    Raises `StoreError`, `KeyFileError`.
    """
    roster, entry = membership.roster, membership.entry
    return papers.take(roster.head.ca if roster else "", entry.certificate if entry else "")
