"""Makes the golden files beside it, from fixed keys and fixed "random" bytes: the same bytes at every run.

    python tests/vectors/make.py [folder]

Reads nothing; writes valid/*.json and invalid/*.json. The keys are made from their names, so they are no secrets.
Only for a change of the contract is it run again: a difference in these files is a new version (PROTOCOL.md, 14).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import enrolled
import make_damaged as damaged
import make_encoded as encoded
import make_enrolled as of_enrolment
import make_invalid as invalid
import make_strange as strange
import make_unopened as unopened
import make_valid as valid

FILES: dict[str, Callable[[], Any]] = {
    "valid/messages": valid.messages,
    "valid/transfers": lambda: valid.transfers() + enrolled.transfers(),
    "valid/weights": valid.weights,
    "valid/encoded": encoded.valid,
    "valid/selection": valid.selection,
    "valid/bars": valid.bars,
    "valid/proofs": valid.proofs,
    "valid/topics": valid.topics,
    "valid/ranges": valid.ranges,
    "valid/sizes": valid.sizes,
    "valid/canonical": valid.canonical,
    "valid/flow": valid.flow,
    "invalid/messages": invalid.messages,
    "invalid/proofs": invalid.proofs,
    "invalid/topics": invalid.topics,
    "invalid/ranges": invalid.ranges,
    "invalid/cores": invalid.cores,
    "invalid/transfers": lambda: damaged.transfers() + unopened.changed_transfers(),
    "invalid/weights": damaged.weights,
    "invalid/encoded": encoded.invalid,
    "valid/documents": of_enrolment.messages,
    "valid/rosters": of_enrolment.rosters,
    "valid/trees": of_enrolment.trees,
    "valid/joins": of_enrolment.joins,
    "valid/entries": of_enrolment.entries,
    "valid/hpke": of_enrolment.hpke,
    "valid/codes": of_enrolment.codes,
    "invalid/documents": strange.messages,
    "invalid/rosters": strange.rosters,
    "invalid/trees": strange.trees,
    "invalid/joins": unopened.joins,
    "invalid/endorsements": unopened.endorsements,
    "invalid/entries": unopened.entries,
    "invalid/hpke": unopened.hpke,
    "invalid/codes": strange.codes,
}


def main(folder: Path) -> None:
    """Write every file into `folder`."""
    for name, make in FILES.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make(), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
