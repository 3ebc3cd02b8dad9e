"""Which tensors of a model are personal, and so never leave a device: by name pattern, as `plan.personal` says. Pure.

FedPer keeps the last layers at home (Arivazhagan et al. 2019), FedBN those of batch normalisation, running statistics
included (Li et al. 2021).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from floe.errors import ConfigError


def is_personal(name: str, patterns: Iterable[str]) -> bool:
    """Whether a tensor of this name stays at home: `*`, `?` and `[...]` as in file names, large and small differ.

    `scaling.*` is no layer, and never personal.
    """
    return not name.startswith("scaling.") and any(fnmatchcase(name, pattern) for pattern in patterns)


def personal_of(names: Collection[str], patterns: Collection[str]) -> frozenset[str]:
    """The personal ones of all tensors of a model.

    Raises `ConfigError`, with the names that there are, for a pattern without a tensor, or if nothing is left to share.
    """
    known = ", ".join(sorted(names))
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f'plan.personal: no tensor of the model is called like "{pattern}"; there are {known}')
    found = frozenset(name for name in names if is_personal(name, patterns))
    if patterns and len(found) == len(names):
        raise ConfigError(f"plan.personal keeps every tensor at home, and leaves none to share; there are {known}")
    return found
