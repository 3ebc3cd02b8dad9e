"""Who may say what: the ACL of every role, asked about every topic of Floe."""

from __future__ import annotations

import pytest
from paho.mqtt.client import topic_matches_sub

from broker.members import Member, Members, acl, passwords
from floe.logins import hash_of, is_hash, new_password

HASH = hash_of("a secret")
MEMBERS = Members(
    "floe",
    devices=(Member("ann", HASH), Member("bob")),
    lineages=(Member("main", HASH), Member("other")),
    operators=(Member("olga", HASH),),
    broker=HASH,
)
TOPICS = {
    "floe/floe/device/ann/status",
    "floe/floe/device/ann/main/3/manifest",
    "floe/floe/device/ann/main/3/chunk/ab/0",
    "floe/floe/device/ann/main/want",
    "floe/floe/device/ann/main/join",
    "floe/floe/device/bob/status",
    "floe/floe/device/bob/main/join",
    "floe/floe/lineage/main/status",
    "floe/floe/lineage/main/round",
    "floe/floe/lineage/main/model",
    "floe/floe/lineage/main/roster",
    "floe/floe/lineage/main/3/chunk/ab/0",
    "floe/floe/lineage/main/to/ann/want",
    "floe/floe/lineage/main/to/ann/3/chunk/ab/0",
    "floe/floe/lineage/main/to/ann/entry",
    "floe/floe/lineage/main/to/ann/join",
    "floe/floe/lineage/main/to/bob/want",
    "floe/floe/lineage/main/to/olga/reply",
    "floe/floe/lineage/other/round",
    "floe/floe/lineage/other/to/bob/answer",
    "floe/floe/operator/olga/main/command",
    "floe/floe/operator/else/main/command",
    "floe/north/lineage/main/roster",
    "$SYS/broker/version",
}


def allowed(login: str, right: str) -> set[str]:
    """The topics that the ACL lets a login ("" for none) `read` or `write`, by Mosquitto's rules for its lines."""
    found, user = set(), ""
    for line in acl(MEMBERS).splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "user":
            user = rest
        elif kind == "topic" and user == login:
            given, topic = rest.split(" ", 1)
            if given in (right, "readwrite"):
                found |= {name for name in TOPICS if topic_matches_sub(topic, name)}
    return found


def below(*starts: str) -> set[str]:
    return {name for name in TOPICS for start in starts if name.startswith(f"floe/floe/{start}")}


def test_a_device_writes_below_its_own_name_alone() -> None:
    assert allowed("device.ann", "write") == below("device/ann/")


def test_a_device_reads_what_is_for_all_and_what_is_for_it() -> None:
    for_all = below("lineage/main/status", "lineage/main/round", "lineage/main/model", "lineage/main/roster")
    for_all |= below("lineage/main/3/chunk", "lineage/other/round")
    assert allowed("device.ann", "read") == for_all | below("lineage/main/to/ann/", "device/ann/status")


def test_a_lineage_writes_its_own_branch_alone_and_reads_devices_operators_and_the_brokers_figures() -> None:
    assert allowed("lineage.main", "write") == below("lineage/main/")
    read = below("lineage/main/", "device/", "operator/")
    assert allowed("lineage.main", "read") == read | {"$SYS/broker/version"}


def test_an_operator_writes_commands_and_reads_what_it_needs_to_judge() -> None:
    assert allowed("operator.olga", "write") == below("operator/olga/")
    read = below("lineage/main/status", "lineage/main/round", "lineage/main/roster", "lineage/other/round")
    assert allowed("operator.olga", "read") == read | below("lineage/main/to/olga/")


def test_the_broker_follows_the_roster_and_says_nothing() -> None:
    assert allowed("broker", "write") == set()
    assert allowed("broker", "read") == {
        "floe/floe/lineage/main/roster",
        "floe/floe/lineage/main/to/ann/entry",
        "$SYS/broker/version",
    }


def test_a_stranger_may_ask_to_join_and_read_what_is_signed_for_all() -> None:
    assert allowed("", "write") == {"floe/floe/device/ann/main/join", "floe/floe/device/bob/main/join"}
    assert allowed("", "read") == {
        "floe/floe/lineage/main/roster",
        "floe/floe/lineage/main/to/ann/entry",
        "floe/floe/lineage/main/to/ann/join",
    }


def test_who_is_no_member_has_no_block() -> None:
    assert "user device.carl" not in acl(MEMBERS)
    assert allowed("device.carl", "write") | allowed("device.carl", "read") == set()


def test_those_with_a_password_have_a_line_of_the_password_file() -> None:
    lines = dict(line.split(":") for line in passwords(MEMBERS).splitlines())
    assert set(lines) == {"broker", "device.ann", "lineage.main", "operator.olga"}
    assert all(is_hash(text) for text in lines.values())
    assert passwords(Members("floe", (Member("ann"),))) == ""


@pytest.mark.parametrize("name", ["", "ann\ntopic readwrite #", "#", "+", "a/b", "Ann", "ann\n", "\x00", "a" * 65])
def test_a_name_cannot_smuggle_in_a_line(name: str) -> None:
    with pytest.raises(ValueError, match="not a name of Floe"):
        Member(name)
    with pytest.raises(ValueError, match="not a name of Floe"):
        Members(name)


@pytest.mark.parametrize(
    "text",
    [
        "secret",
        HASH + "\ndevice.bob:" + HASH,
        HASH + "\n",
        HASH.replace("$101$", "$2000000000$"),
        HASH[:-4],
        HASH.replace("$7$", "$6$"),
    ],
)
def test_a_hash_can_neither_smuggle_in_a_line_nor_keep_the_broker_busy(text: str) -> None:
    assert not is_hash(text)
    with pytest.raises(ValueError, match="not a hash of Mosquitto"):
        Member("ann", text)


def test_every_password_and_every_salt_is_new() -> None:
    assert len({new_password() for _ in range(20)}) == 20
    assert len({hash_of("same") for _ in range(20)}) == 20
    assert is_hash(hash_of(new_password()))
