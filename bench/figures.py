"""From moments to figures: the parts of a round, medians, tables. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bench.listener import Seen
from floe.errors import IncompleteError
from floe.terminal import size_words

PARTS = {
    "work": "the round is published -> the first update is announced",
    "collect": "-> the last update is answered: uploaded, opened, checked, on disk",
    "aggregate": "-> the next model's manifest: mean, sealing",
    "push": "-> its last chunk has left the broker",
    "take": "-> it is in every client's hands: opened, checked, read",
}


def parts_of(seen: Seen, hands: Sequence[float], clients: int) -> dict[str, float]:
    """The parts of one round, in seconds; their sum is the round. `hands`: when each client had its model.

    Raises `IncompleteError` for a round that was not seen whole.
    """
    if not (seen.opened and seen.announced and seen.model and seen.pushed) or len(seen.answered) < clients:
        raise IncompleteError(f"a round was not seen whole: {seen}")
    if len(hands) != clients:
        raise IncompleteError(f"{len(hands)} of {clients} clients were given the model of a round")
    answered = sorted(seen.answered)[clients - 1]
    moments = [seen.opened[0], seen.announced[0], answered, seen.model[0], seen.pushed[0], max(hands)]
    return {name: later - moment for name, moment, later in zip(PARTS, moments, moments[1:], strict=False)}


def medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every key. The first row is dropped: it pays for what is done once."""
    kept = rows[1:]
    return {key: statistics.median(row[key] for row in kept) for key in kept[0]}


def round_lines(result: Mapping[str, Any]) -> list[str]:
    """A result of `floe bench round` for a person."""
    head = f"{result['clients']} clients, {size_words(result['bytes'])}, {result['suite']}"
    lines = [f"{head}: {result['seconds']:.3f} s a round (median of {result['rounds'] - 1})"]
    lines += [f"  {name:<10} {result['parts'][name]:8.3f} s   {meaning}" for name, meaning in PARTS.items()]
    lines += [
        f"  up         {size_words(result['bytes_up']):>8}     received by the aggregator in a round",
        f"  down       {size_words(result['bytes_down']):>8}     published by it, once for all",
        f"  memory     {result['aggregator_peak_mb']:8.1f} MB  aggregator, peak (VmHWM)",
        f"             {result['client_peak_mb']:8.1f} MB  client, peak",
    ]
    return lines


def transport_lines(result: Mapping[str, Any]) -> list[str]:
    """A result of `floe bench transport` for a person."""
    return [
        f"{size_words(result['bytes'])} in chunks of {result['chunk_bytes']} bytes, {result['suite']}",
        f"  raw   {result['raw_mb_s']:8.1f} MB/s   paho to paho through the same Mosquitto, QoS 1",
        f"  floe  {result['floe_mb_s']:8.1f} MB/s   announced, asked for, sent, verified, opened, synced, answered",
        f"  ratio {result['ratio']:8.2f}",
    ]
