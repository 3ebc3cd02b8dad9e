"""Names that a device may have. Pure.

A name is a level of topics and a user at the broker: some would be mistaken for something else there.
"""

from __future__ import annotations

import re

from floe.certificates import MAX_LOGIN
from floe.documents import ROOT
from floe.topics import NAME

# `chunk` stands beside devices in a lineage's topics: patterns of the broker for the one would be for the other.
RESERVED = (ROOT, "broker", "chunk")
MOST_WITH_CERTIFICATE = MAX_LOGIN - len("device.")


def fault_of(name: str, *, certificate: bool) -> str:
    """What hinders a device to be called so, "" if nothing does. `certificate`: it logs in with one, which names it."""
    if not re.fullmatch(NAME, name) or name.startswith("-"):  # which would be taken for a flag
        return "a device needs a name of [a-z0-9_-]{1,64} that does not begin with a hyphen"
    if name in RESERVED:
        return f"no device is called {', '.join(RESERVED[:-1])} or {RESERVED[-1]}: choose another name"
    if certificate and len(name) > MOST_WITH_CERTIFICATE:
        return (
            f"{len(name)} characters, and a certificate holds {MOST_WITH_CERTIFICATE} of a device's name ([mqtt] login "
            '= "certificates"): choose a shorter one'
        )
    return ""
