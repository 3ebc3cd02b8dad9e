"""What a device gets in at the broker with: made here, certified by the aggregator, fetched with the roster."""

from __future__ import annotations

from pathlib import Path

from edge_client.membership import Membership
from floe.papers import Papers
from floe.settings import Mqtt

LOST = (
    "{0}: what lies there to log in with is not what the roster has of device {1!r}; if it was lost, ask an operator "
    "for an invitation (`floe invite --device {1}`), then run `floe join CODE --id {1}` here"
)


def papers_of(state: Path, device: str) -> Papers:
    """A device's, in a folder that a change of its signing keys leaves as it is."""
    return Papers(state / "access", f"device.{device}")


def is_on_card(papers: Papers, membership: Membership, mqtt: Mqtt) -> bool:
    """Whether our card has the key or password that we would get in with; where it asks for none, it has."""
    login, tls = papers.public(mqtt)
    card = membership.card
    return card is not None and login in ("", card.keys.login) and tls in ("", card.keys.tls)


def take_papers(papers: Papers, membership: Membership) -> bool:
    """Keep the authority that the roster's head names, and the certificate of our entry; whether one is news.

    Raises `StoreError`, `KeyFileError`.
    """
    roster, entry = membership.roster, membership.entry
    return papers.take(roster.head.ca if roster else "", entry.certificate if entry else "")
