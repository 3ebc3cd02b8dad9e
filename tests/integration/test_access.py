"""A real Mosquitto with TLS: who gets in, who does not and is told why, and what each may say."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.broker import broker_on, free
from helpers.enrolled import DAY, WAIT_S, Enrolled, Login, session, until

from broker.render import ServerFiles
from edge_client.device import LISTENS_TO
from edge_client.enrolled import LISTENS_TO as ROSTER
from floe.access import Access, Tls
from floe.certificates import client_certificate, load_authority, spki, tls_key
from floe.errors import AccessError, BrokerError, KeyFileError
from floe.identity import load_identity
from floe.keyring import Keyring
from floe.sequence import Sequence
from floe.session import Connected, Disconnected, Published, Received, Session
from floe.settings import Mqtt
from floe.topics import DeviceManifest, DeviceStatus, ModelChunk, filter_of
from floe.wire import Wire

REFUSED = "Not authorized (135)"
OWN, OTHERS = "floe/floe/device/ann/status", "floe/floe/device/bob/status"


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    return Enrolled(tmp_path, "certificates")


@pytest.fixture(params=["certificates", "passwords"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Enrolled:
    """Both ways to log in."""
    login: Login = request.param
    return Enrolled(tmp_path, login)


@pytest.fixture
def other(tmp_path: Path) -> Enrolled:
    """Another federation, with an authority of its own."""
    return Enrolled(tmp_path / "other", "certificates")


@pytest.fixture
def running(enrolled: Enrolled) -> Iterator[Enrolled]:
    with enrolled.broker(enrolled.members("ann", "bob")):
        yield enrolled


def fault(port: int, access: Access | None) -> tuple[str, str]:
    """Why a session does not come about."""
    with pytest.raises(AccessError) as caught, session(port, access):
        pass
    return caught.value.fault, str(caught.value)


def say(found: Session, topic: str, payload: bytes = b"x", *, retain: bool = False) -> str:
    """The broker's refusal of a message, or "" if it took it; the connection holds meanwhile."""
    found._refusals.clear()  # of a repeated refusal a session says nothing
    found.publish(topic, payload, retain=retain)
    events = until(found, lambda event: isinstance(event, Published))
    assert not [event for event in events if isinstance(event, Disconnected)]
    assert isinstance(events[-1], Published)
    return events[-1].refusal


def say_until(found: Session, topic: str, refusal: str) -> None:
    """Say it until the broker answers so: nobody is told when a reload is over."""
    until_s = time.monotonic() + WAIT_S
    while (answer := say(found, topic)) != refusal:
        assert time.monotonic() < until_s, answer


def heard(found: Session, last: str) -> list[str]:
    """The topics that arrive, up to `last`."""
    events = until(found, lambda event: isinstance(event, Received) and event.topic == last)
    return [event.topic for event in events if isinstance(event, Received)]


def test_a_certificate_logs_in_and_small_packets_do_not_wait(running: Enrolled) -> None:
    with running.session("device.ann") as found:
        sock = found._client.socket()
        assert isinstance(sock, socket.socket)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert say(found, OWN) == ""


def test_a_listener_with_tls_is_told_not_to_let_small_packets_wait(running: Enrolled) -> None:
    """The other end of the same: what the broker sends."""
    assert "\nset_tcp_nodelay true\n" in (running.folder / "broker" / "mosquitto.conf").read_text()


def test_a_model_comes_through_tls_whole(running: Enrolled) -> None:
    chunks = [bytes([index]) * 65536 for index in range(64)]
    with (
        running.session("device.ann", [filter_of(ModelChunk)]) as device,
        running.session("lineage.main", ["floe/floe/device/#"]) as lineage,
    ):
        for index, chunk in enumerate(chunks):
            lineage.publish(str(ModelChunk("floe", "main", 1, "ab" * 16, index)), chunk)
        found: list[bytes] = []
        while len(found) < len(chunks):
            event = until(device, lambda event: isinstance(event, Received))[-1]
            assert isinstance(event, Received)
            device.ack(event)
            found.append(event.payload)
        assert found == chunks


def test_without_a_certificate_nobody_gets_in(running: Enrolled) -> None:
    what, text = fault(running.port, Access(tls=Tls(running.folder / "ca.pem")))
    assert (what, "nobody without a certificate, and we have none" in text) == ("certificate", True)


def test_a_certificate_of_another_authority_is_refused(running: Enrolled, other: Enrolled) -> None:
    theirs = other.access("device.ann").tls
    assert theirs is not None
    mixed = Tls(running.folder / "ca.pem", certificate=theirs.certificate, key=theirs.key)
    what, text = fault(running.port, Access(tls=mixed))
    assert what == "certificate"
    assert f"refuses our certificate {theirs.certificate}, valid until" in text
    assert "unknown ca" in text


def test_an_expired_certificate_is_refused_with_its_date(running: Enrolled) -> None:
    what, text = fault(running.port, running.access("device.ann", age_s=91 * DAY))
    assert what == "certificate"
    assert "expired on 20" in text


def test_a_broker_of_another_authority_is_not_spoken_to(running: Enrolled, other: Enrolled) -> None:
    what, text = fault(running.port, other.access("device.ann"))
    assert what == "server"
    assert "does not verify (self-signed certificate in certificate chain)" in text
    assert f"needed is one by the authority in {other.folder}" in text


def test_a_broker_that_no_authority_of_the_system_knows_is_not_spoken_to(running: Enrolled) -> None:
    found = Session(Mqtt(port=running.port, tls=True), "test", (), None)
    with pytest.raises(AccessError, match="an authority that this system trusts"):
        found.connect(lambda: False, lambda text: None)
    found.close()


@pytest.mark.parametrize(
    ("names", "age_s", "reason"),
    [(("broker.local",), 0.0, "IP address mismatch"), (("127.0.0.1",), 398 * DAY, "certificate has expired")],
)
def test_a_broker_under_another_name_or_with_an_old_certificate_is_not_spoken_to(
    enrolled: Enrolled, names: tuple[str, ...], age_s: float, reason: str
) -> None:
    with enrolled.broker(enrolled.members("ann"), enrolled.certify(names, age_s)):
        what, text = fault(enrolled.port, enrolled.access("device.ann"))
    assert what == "server"
    assert reason in text


def test_a_device_cannot_pass_itself_off_as_the_broker(enrolled: Enrolled) -> None:
    bob = enrolled.access("device.bob").tls
    assert bob is not None
    assert bob.certificate is not None
    assert bob.key is not None
    with enrolled.broker(enrolled.members("ann"), ServerFiles(enrolled.folder / "ca.pem", bob.certificate, bob.key)):
        what, text = fault(enrolled.port, enrolled.access("device.ann"))
    assert (what, "unsuitable certificate purpose" in text or "mismatch" in text) == ("server", True)


def test_in_clear_to_a_port_of_tls_is_told(running: Enrolled) -> None:
    what, text = fault(running.port, None)
    assert what == "tls-only"
    assert text.endswith("speaks TLS, and we do not: set [mqtt] tls = true")


def test_tls_to_a_port_in_clear_is_told(enrolled: Enrolled, tmp_path: Path) -> None:
    port, told = free(), list[str]()
    with broker_on(tmp_path / "plain", port):
        found = Session(Mqtt(port=port, connect_timeout_s=1), "test", (), None, enrolled.access("device.ann"))
        with pytest.raises(BrokerError, match="ends the connection when we speak TLS: is that its TLS port"):
            found.connect(lambda: False, told.append)
        found.close()
    assert len(told) <= 1


def test_certificates_that_cannot_be_used_are_named(enrolled: Enrolled, other: Enrolled) -> None:
    mine, theirs = enrolled.access("device.ann").tls, other.access("device.ann").tls
    assert mine is not None
    assert theirs is not None
    assert mine.key is not None
    with pytest.raises(KeyFileError, match=r"device\.ann\.pem: not the certificate of .*device\.ann\.key"):
        Tls(certificate=mine.certificate, key=theirs.key).context()
    with pytest.raises(KeyFileError, match=r"ca\.pem: cannot be read"):
        Tls(enrolled.folder / "nowhere" / "ca.pem").context()
    with pytest.raises(KeyFileError, match=r"device\.ann\.key: not a certificate in PEM"):
        Tls(mine.key).context()
    mine.key.chmod(0o644)
    with pytest.raises(KeyFileError, match=r"device\.ann\.key: mode 0644 lets others read it"):
        mine.context()


def test_a_session_that_comes_back_to_another_broker_ends_with_the_reason(enrolled: Enrolled, other: Enrolled) -> None:
    impostor = Enrolled(other.folder / "again", "certificates", enrolled.port, enrolled.lobby)
    with ExitStack() as stack:
        with enrolled.broker(enrolled.members("ann")):
            ann = stack.enter_context(enrolled.session("device.ann"))
        stack.enter_context(impostor.broker(impostor.members("ann")))
        with pytest.raises(AccessError, match="its certificate does not verify"):
            until(ann, lambda event: isinstance(event, Connected))


def test_a_renewed_certificate_is_shown_when_the_session_comes_back(enrolled: Enrolled) -> None:
    """Told by its name, which is another one here; a file that does not read changes nothing."""
    members = enrolled.members("ann", "bob")
    certificate, public = enrolled.folder / "device.ann.pem", spki(tls_key(enrolled.folder / "device.ann.key"))
    with ExitStack() as stack:
        with enrolled.broker(members):
            ann = stack.enter_context(enrolled.session("device.ann"))
            assert say(ann, OWN) == ""
        certificate.write_text(client_certificate(load_authority(enrolled.folder), "device.bob", public, time.time()))
        with enrolled.broker(members):
            until(ann, lambda event: isinstance(event, Connected))
            assert say(ann, OTHERS) == ""
        certificate.write_text("no PEM")
        stack.enter_context(enrolled.broker(members))
        events = until(ann, lambda event: isinstance(event, Connected))
        assert any(
            "not a certificate and its key" in event.reason for event in events if isinstance(event, Disconnected)
        )
        assert say(ann, OTHERS) == ""


@pytest.mark.parametrize("topic", [OTHERS, "floe/floe/device/bob/main/1/manifest", "floe/floe/lineage/main/round"])
def test_a_device_cannot_write_as_another(either: Enrolled, topic: str) -> None:
    with either.broker(either.members("ann", "bob")), either.session("device.ann") as found:
        assert say(found, OWN) == ""
        assert say(found, topic) == REFUSED
        assert say(found, OWN) == "", "and stays connected"


def test_what_a_device_and_an_aggregator_listen_to_reaches_them(either: Enrolled) -> None:
    """Every filter in use today, with its `+`, is taken; a message comes through each."""
    me = {"federation": "floe", "lineage": "main", "device": "ann"}
    filters = [
        filter_of(kind, **{k: v for k, v in me.items() if k in kind.__dataclass_fields__})
        for kind in (*LISTENS_TO, *ROSTER)
    ]
    topics = [text.replace("+", "0") for text in filters]
    listening = [filter_of(DeviceStatus, federation="floe"), filter_of(DeviceManifest, federation="floe")]
    with (
        either.broker(either.members("ann", "bob")),
        either.session("lineage.main", listening) as lineage,
        either.session("device.ann", filters) as ann,
        either.session("device.bob") as bob,
    ):
        ann.publish(OWN, b"x")
        for topic in topics:
            assert topic == OWN or say(lineage, topic) == ""
        arrived: set[str] = set()
        while arrived != set(topics):
            event = until(ann, lambda event: isinstance(event, Received))[-1]
            arrived |= {event.topic} if isinstance(event, Received) else set()
        assert say(bob, OTHERS) == ""
        manifest = str(DeviceManifest("floe", "bob", "main", 1))
        assert say(bob, manifest) == ""
        assert OTHERS in heard(lineage, manifest)


def test_a_device_hears_nothing_that_is_for_another(either: Enrolled) -> None:
    last = "floe/floe/lineage/main/round"
    with (
        either.broker(either.members("ann", "bob")),
        either.session("lineage.main") as lineage,
        either.session("device.ann", ["floe/#"]) as ann,
    ):
        for topic in ("floe/floe/lineage/main/to/bob/want", "floe/floe/lineage/main/to/ann/want", last):
            assert say(lineage, topic) == ""
        assert heard(ann, last) == ["floe/floe/lineage/main/to/ann/want", last]


def test_an_operator_commands_and_hears_its_reply(either: Enrolled) -> None:
    reply = "floe/floe/lineage/main/to/olga/reply"
    with (
        either.broker(either.members("ann")),
        either.session("lineage.main", ["floe/floe/operator/+/main/command"]) as lineage,
        either.session("operator.olga", [reply]) as olga,
    ):
        assert say(olga, "floe/floe/operator/olga/main/command") == ""
        assert heard(lineage, "floe/floe/operator/olga/main/command")
        assert say(lineage, reply) == ""
        assert heard(olga, reply) == [reply]
        assert say(olga, "floe/floe/lineage/main/round") == REFUSED


def test_the_lobby_lets_a_stranger_join_and_nothing_else(either: Enrolled) -> None:
    stranger = Access(tls=Tls(verify=False))
    entry, secret = "floe/floe/lineage/main/to/ann/entry", "floe/floe/lineage/main/model"
    join = "floe/floe/device/zoe/main/join"
    with (
        either.broker(either.members("ann")),
        either.session("lineage.main", ["floe/floe/device/+/main/join"]) as lineage,
        session(either.lobby, stranger, ["#"]) as zoe,
    ):
        assert say(zoe, join) == ""
        assert heard(lineage, join) == [join]
        for topic in (secret, "floe/floe/lineage/main/roster", entry):
            assert say(lineage, topic, retain=True) == ""
        assert heard(zoe, entry) == ["floe/floe/lineage/main/roster", entry]
        assert say(zoe, "floe/floe/device/zoe/status") == REFUSED


@pytest.mark.parametrize("topic", [OWN, "floe/floe/lineage/main/roster", "floe/floe/lineage/main/to/ann/join"])
def test_a_stranger_of_the_lobby_speaks_for_nobody(running: Enrolled, topic: str) -> None:
    with session(running.lobby, Access(tls=Tls(verify=False))) as zoe:
        assert say(zoe, topic) == REFUSED


def test_a_stranger_who_knows_what_is_public_cannot_cut_a_member(running: Enrolled) -> None:
    """A broker cuts a client when another one, at whichever listener, comes with its client identifier."""
    ann = load_identity(running.folder / "keys", "ann")
    wire = Wire(
        Mqtt(port=running.port), "floe", ann, Keyring("plaintext", None), Sequence(running.folder / "sequence"),
        None, [], running.access("device.ann"),
    )  # fmt: skip
    wire.session.connect(lambda: False, lambda text: None)
    until(wire.session, lambda event: isinstance(event, Connected))
    for guess in (f"floe-ann-{ann.key[:8]}", "floe-ann-", "device.ann", "ann"):
        with session(running.lobby, Access(tls=Tls(verify=False)), name=guess):
            assert say(wire.session, OWN) == ""
    with session(running.lobby, Access(tls=Tls(verify=False)), name=f"floe-ann-{ann.mark}"):
        until(wire.session, lambda event: isinstance(event, Disconnected))  # so it would be
    wire.session.close()


@pytest.mark.parametrize("password", ["", "a guess"])
def test_a_user_name_at_the_lobby_is_worth_nothing_without_its_password(either: Enrolled, password: str) -> None:
    with either.broker(either.members("ann")):
        for name in ("device.ann", "broker", "device.zoe"):
            what, text = fault(either.lobby, Access(name, password, Tls(verify=False)))
            assert (what, "check [mqtt] username and password" in text) == ("login", True)


@pytest.mark.parametrize("password", ["", "a guess"])
def test_with_passwords_a_wrong_one_is_refused(tmp_path: Path, password: str) -> None:
    enrolled = Enrolled(tmp_path, "passwords")
    with enrolled.broker(enrolled.members("ann")):
        what, _ = fault(enrolled.port, Access("device.ann", password, Tls(tmp_path / "ca.pem")))
    assert what == "login"


def test_a_reload_gives_and_takes_the_rights_of_a_connected_device_and_cuts_nobody(enrolled: Enrolled) -> None:
    """A certificate gets in as long as it holds; what it may do the members say."""
    with (
        enrolled.broker(enrolled.members("bob")) as broker,
        enrolled.session("device.ann") as ann,
        enrolled.session("device.bob") as bob,
        session(enrolled.lobby, Access(tls=Tls(verify=False))) as zoe,
    ):
        assert say(ann, OWN) == REFUSED
        broker.reload(enrolled.members("ann", "bob"))
        say_until(ann, OWN, "")
        broker.reload(enrolled.members("bob"))
        say_until(ann, OWN, REFUSED)
        assert say(bob, OTHERS) == ""
        assert say(zoe, "floe/floe/device/zoe/main/join") == ""


def test_what_was_subscribed_to_before_stays_and_brings_what_the_rights_allow(enrolled: Enrolled) -> None:
    want = "floe/floe/lineage/main/to/ann/want"
    with (
        enrolled.broker(enrolled.members()) as broker,
        enrolled.session("lineage.main") as lineage,
        enrolled.session("device.ann", [want, "floe/floe/device/ann/status"]) as ann,
    ):
        assert say(lineage, want, b"before") == ""
        broker.reload(enrolled.members("ann"))
        say_until(ann, OWN, "")
        assert say(lineage, want, b"after") == ""
        events = until(ann, lambda event: isinstance(event, Received) and event.topic == want)
        assert [event.payload for event in events if isinstance(event, Received)][-1] == b"after"


def test_with_passwords_a_reload_cuts_who_is_removed_and_nobody_else(tmp_path: Path) -> None:
    enrolled = Enrolled(tmp_path, "passwords")
    both = enrolled.members("ann", "bob")
    with (
        enrolled.broker(both) as broker,
        enrolled.session("device.ann") as ann,
        enrolled.session("device.bob") as bob,
        session(enrolled.lobby, Access(tls=Tls(verify=False))) as zoe,
    ):
        broker.reload(replace(both, devices=both.devices[1:]))
        with pytest.raises(AccessError, match="refused us: Not authorized") as caught:
            until(ann, lambda event: isinstance(event, Connected))
        assert caught.value.fault == "login"
        assert say(bob, OTHERS) == ""
        assert say(zoe, "floe/floe/device/zoe/main/join") == ""


def test_who_is_approved_gets_in_after_a_reload(either: Enrolled) -> None:
    before, after = either.members("ann"), either.members("ann", "bob")
    with either.broker(before) as broker, either.session("device.ann") as ann:
        broker.reload(replace(after, devices=(*before.devices, after.devices[1])))
        say_until(ann, OWN, "")
        with either.session("device.bob") as bob:
            say_until(bob, OTHERS, "")
        assert say(ann, OWN) == ""


def test_a_reload_brings_the_broker_a_new_certificate_and_cuts_nobody(enrolled: Enrolled) -> None:
    members = enrolled.members("ann")
    with enrolled.broker(members, enrolled.certify(age_s=398 * DAY)) as broker:
        assert fault(enrolled.port, enrolled.access("device.ann"))[0] == "server"
        with session(enrolled.lobby, Access(tls=Tls(verify=False))) as zoe:
            enrolled.certify()
            broker.reload(members)
            join = "floe/floe/device/zoe/main/join"
            say_until(zoe, join, "")
            with enrolled.session("device.ann") as ann:
                assert say(ann, OWN) == ""
            assert say(zoe, join) == ""


def test_a_reload_at_once_after_the_start_ends_nothing(enrolled: Enrolled) -> None:
    for _ in range(5):
        with enrolled.broker(enrolled.members()) as broker:
            broker.reload(enrolled.members("ann"))
            with enrolled.session("device.ann") as ann:
                say_until(ann, OWN, "")
            assert broker.exit_code() is None
