"""A map of names to hashes under one root hash, with short proofs: changing one of 5,000 takes 13 hashes. Pure.

A sparse Merkle tree: a name's place is the bits of its SHA-256, a subtree with one leaf is that leaf, an empty one 32
zero bytes. Leaves and nodes are told apart by their first byte (RFC 6962, 2.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from floe.documents import Proof, Sibling

EMPTY = bytes(32)
_Leaf = tuple[bytes, bytes]  # SHA-256 of the name, and of the card


def root_of(cards: Mapping[str, bytes]) -> str:
    """The root, in hexadecimal, of a map from names to SHA-256 hashes of 32 bytes."""
    return _root(_sorted(cards), 0).hex()


def prove(cards: Mapping[str, bytes], name: str) -> Proof:
    """What shows that a name has its hash in the map, or has none."""
    place, path, depth = _place(name), list[str](), 0
    leaves: Sequence[_Leaf] = _sorted(cards)
    while len(leaves) > 1:
        left, right = _split(leaves, depth)
        ours, others = (right, left) if _bit(place, depth) else (left, right)
        path.append(_root(others, depth + 1).hex())
        leaves, depth = ours, depth + 1
    other = next((Sibling(found.hex(), card.hex()) for found, card in leaves if found != place), None)
    return Proof(tuple(path), other)


def root_with(proof: Proof, name: str, card: bytes | None) -> str:
    """The root of the map that the proof was made from, if `name` has this hash there (None: it has none).

    To verify a proof, compare it with the known root; then, with another hash, it is the root after the change.
    """
    place, depth = _place(name), len(proof.path)
    leaves = [] if proof.other is None else [(bytes.fromhex(proof.other.name), bytes.fromhex(proof.other.card))]
    if any(found == place or _bits(found, depth) != _bits(place, depth) for found, _ in leaves):
        return ""  # a leaf that cannot stand there: no root is so spelled
    if card is not None:
        leaves = sorted([*leaves, (place, card)])
    node = _root(leaves, depth)
    for level in range(depth - 1, -1, -1):
        sibling = bytes.fromhex(proof.path[level])
        node = _node(sibling, node) if _bit(place, level) else _node(node, sibling)
    return node.hex()


def _sorted(cards: Mapping[str, bytes]) -> list[_Leaf]:
    return sorted((_place(name), card) for name, card in cards.items())


def _root(leaves: Sequence[_Leaf], depth: int) -> bytes:
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0][0] + leaves[0][1]).digest()
    left, right = _split(leaves, depth)
    return _node(_root(left, depth + 1), _root(right, depth + 1))


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(leaves: Sequence[_Leaf], depth: int) -> tuple[Sequence[_Leaf], Sequence[_Leaf]]:
    at = next((number for number, (place, _) in enumerate(leaves) if _bit(place, depth)), len(leaves))
    return leaves[:at], leaves[at:]


def _place(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def _bit(place: bytes, depth: int) -> int:
    return place[depth // 8] >> (7 - depth % 8) & 1


def _bits(place: bytes, depth: int) -> int:
    return int.from_bytes(place) >> (256 - depth)
