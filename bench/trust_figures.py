"""From processor seconds to the table of `floe bench trust`. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bench.folder import Settings, Trust, model_bytes
from bench.trust import Spent
from floe.terminal import size_words

NAMES: Mapping[Trust, str] = {
    "shared": "shared key",
    "ed25519": "enrolled, Ed25519",
    "rsa-2048-pss": "enrolled, RSA-2048-PSS",
}
COLUMNS = {"cpu_seconds": "CPU s", "aggregator": "aggregator", "clients": "clients", "broker": "broker"}


def trust_result(
    settings: Settings, spent: Mapping[Trust, Sequence[Spent]], primitives: Mapping[str, Any]
) -> dict[str, Any]:
    """What `floe bench trust --json` prints. A round's CPU seconds are the aggregator's and the clients'; each round is
    compared with the shared key's of the same turn, when the machine was as fast or slow.
    """
    wholes = {mode: [row.aggregator + row.clients for row in rows] for mode, rows in spent.items()}
    modes = []
    for mode, rows in spent.items():
        parts = {name: statistics.median(asdict(row)[name] for row in rows) for name in list(COLUMNS)[1:]}
        ratio = statistics.median(w / shared for w, shared in zip(wholes[mode], wholes["shared"], strict=True))
        whole = {"cpu_seconds": statistics.median(wholes[mode]), "each_round": wholes[mode]}
        modes.append({"mode": mode, **whole, **parts, "ratio": ratio})
    return {
        "clients": settings.clients,
        "params": settings.params,
        "bytes": model_bytes(settings),
        "rounds": settings.rounds,
        "suite": settings.suite,
        "modes": modes,
        **primitives,
    }


def trust_lines(result: Mapping[str, Any]) -> list[str]:
    """A result of `floe bench trust` for a person."""
    head = f"{result['clients']} clients, {size_words(result['bytes'])}, {result['suite']}"
    lines = [f"{head}: processor seconds of a round (medians of {result['rounds']}, in turn)"]
    lines.append(" " * 24 + "".join(f"{title:>12}" for title in (*COLUMNS.values(), "ratio")))
    for mode in result["modes"]:
        cells = "".join(f"{mode[name]:12.4f}" for name in COLUMNS)
        lines.append(f"  {NAMES[mode['mode']]:<22}{cells}{mode['ratio']:12.3f}")
    lines.append("CPU s: aggregator and clients. One signature, in microseconds, and characters in a message:")
    lines.append(" " * 24 + "".join(f"{title:>12}" for title in ("sign", "verify", "signature", "key")))
    for found in result["signatures"]:
        times = f"{found['sign_us']:12.0f}{found['verify_us']:12.0f}"
        sizes = f"{found['signature_characters']:12}{found['key_characters']:12}"
        lines.append(f"  {found['algorithm']:<22}{times}{sizes}")
    hpke = result["hpke"]
    lines.append(
        f"HPKE of a key: {hpke['seal_us']:.0f} us to seal, {hpke['open_us']:.0f} to open, {hpke['bytes']} bytes"
    )
    return lines
