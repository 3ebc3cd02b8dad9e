"""The covering array of `tests/e2e/test_pairs.py` covers what it says."""

from __future__ import annotations

from itertools import product

from helpers.pairs import FACTORS, PARTITIONS, RULES, cases, pairs, sound, wanted


def test_every_rule_runs_with_every_partition() -> None:
    assert {(case.rule, case.setup.partition) for case in cases()} == set(product(RULES, PARTITIONS))


def test_every_sound_pair_of_the_other_choices_is_covered() -> None:
    covered = set().union(*(pairs(case.factors) for case in cases()))
    assert sorted(sorted(pair) for pair in wanted() - covered) == []


def test_every_round_is_sound() -> None:
    assert [case.name for case in cases() if not sound(case.factors)] == []


def test_the_pairs_that_nothing_can_cover_are_these() -> None:
    values = [(name, value) for name, known in FACTORS.items() for value in known]
    every = {frozenset((a, b)) for a, b in product(values, values) if a[0] < b[0]}
    assert {tuple(sorted(value for _, value in pair)) for pair in every - wanted()} == {
        ("device", "federated"), ("example", "federated"), ("device", "standard"), ("example", "standard"),
        ("federated", "mlp"),
        *(("device", rule) for rule in RULES if rule not in ("fedavg", "fedprox")),
    }  # fmt: skip
