"""The map of cards: its root is of its content alone, and a proof shows one place in it and no other."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from helpers.wire import names
from hypothesis import given
from hypothesis import strategies as st

from floe import merkle
from floe.documents import Proof, Sibling

hashes = st.binary(min_size=32, max_size=32)
maps = st.dictionaries(names, hashes, max_size=24)
CARD, OTHER = b"c" * 32, b"o" * 32
FLEET = {f"device-{i}": hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(5000)}


@given(maps, st.randoms())
def test_the_root_is_of_the_map_and_not_of_its_order(cards: dict[str, bytes], random: object) -> None:
    shuffled = sorted(cards, key=lambda name: hashlib.sha256(f"{random}{name}".encode()).digest())
    assert merkle.root_of({name: cards[name] for name in shuffled}) == merkle.root_of(cards)


@given(maps, maps)
def test_two_maps_have_one_root_only_if_they_are_equal(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (merkle.root_of(one) == merkle.root_of(other)) == (one == other)


@given(maps, names)
def test_a_proof_gives_the_root_of_a_name_that_is_there_and_of_one_that_is_not(
    cards: dict[str, bytes], name: str
) -> None:
    for asked in (name, *cards):
        proof = merkle.prove(cards, asked)
        assert merkle.root_with(proof, asked, cards.get(asked)) == merkle.root_of(cards)


@given(maps, names, hashes)
def test_with_another_card_it_gives_the_root_after_the_change(cards: dict[str, bytes], name: str, card: bytes) -> None:
    for asked in (name, *cards):
        proof = merkle.prove(cards, asked)
        assert merkle.root_with(proof, asked, card) == merkle.root_of(cards | {asked: card})


@given(maps, names, hashes)
def test_no_other_card_has_the_root(cards: dict[str, bytes], name: str, card: bytes) -> None:
    root = merkle.root_of(cards)
    for asked in (name, *cards):
        proof = merkle.prove(cards, asked)
        assert (merkle.root_with(proof, asked, card) == root) == (cards.get(asked) == card)
        assert (merkle.root_with(proof, asked, None) == root) == (asked not in cards)


@given(st.data())
def test_a_proof_that_is_altered_gives_another_root(data: st.DataObject) -> None:
    cards = data.draw(maps.filter(lambda found: len(found) > 1))
    name = data.draw(st.sampled_from(sorted(cards)) | names)
    proof = merkle.prove(cards, name)
    path, other = list(proof.path), proof.other
    kinds = ["cut", "longer", "other"] + ["turn"] * bool(path) + ["sibling"] * (other is not None)
    match data.draw(st.sampled_from(kinds)):
        case "turn":
            at = data.draw(st.integers(0, len(path) - 1))
            path[at] = _turned(path[at], data.draw(st.integers(0, 255)))
        case "cut":
            path = path[:-1] if path else ["0" * 64]
        case "longer":
            path.insert(data.draw(st.integers(0, len(path))), "0" * 64)
        case "other":
            other = Sibling("f" * 64, "0" * 64) if other is None else None
        case "sibling":
            assert other is not None
            other = msgspec.structs.replace(other, card=_turned(other.card, data.draw(st.integers(0, 255))))
    assert merkle.root_with(Proof(tuple(path), other), name, cards.get(name)) != merkle.root_of(cards)


@given(maps.filter(lambda found: len(found) > 1), st.data())
def test_a_proof_is_of_one_name(cards: dict[str, bytes], data: st.DataObject) -> None:
    one, other = data.draw(st.permutations(sorted(cards)))[:2]
    root, proof = merkle.root_of(cards), merkle.prove(cards, one)
    assert merkle.root_with(proof, other, cards[one]) != root
    assert merkle.root_with(proof, other, None) != root


def test_the_root_of_nobody_is_zero_and_of_one_a_leaf() -> None:
    assert merkle.root_of({}) == "0" * 64
    place = hashlib.sha256(b"ann").digest()
    assert merkle.root_of({"ann": CARD}) == hashlib.sha256(b"\0" + place + CARD).hexdigest()
    assert merkle.prove({"ann": CARD}, "ann") == Proof()
    assert merkle.prove({}, "ann") == Proof()


def test_the_names_own_leaf_is_no_other_leaf() -> None:
    own = Sibling(hashlib.sha256(b"ann").hexdigest(), CARD.hex())
    assert merkle.root_with(Proof((), own), "ann", None) != merkle.root_of({"ann": CARD})
    assert merkle.root_with(Proof((), own), "ann", OTHER) == ""


@pytest.mark.parametrize("length", [255, 256])
def test_a_path_to_the_very_end_is_no_reason_to_fail(length: int) -> None:
    proof = Proof(("0" * 64,) * length, Sibling("f" * 64, "0" * 64))
    assert merkle.root_with(proof, "ann", CARD) == ""
    assert len(merkle.root_with(Proof(("0" * 64,) * length), "ann", CARD)) == 64


def test_one_of_5000_is_proved_with_few_hashes() -> None:
    for name in ("device-0", "device-4999", "nobody"):
        proof = merkle.prove(FLEET, name)
        assert len(proof.path) <= 30
        assert merkle.root_with(proof, name, FLEET.get(name)) == merkle.root_of(FLEET)


def _turned(text: str, bit: int) -> str:
    return f"{int(text, 16) ^ 1 << bit:064x}"
