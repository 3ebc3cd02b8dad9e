"""`floe join` up to its first word on the wire: what it writes, and what it does not agree with."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.wire import ANN, EVE

from edge_client.asked import Asked, forget_asked, keep_asked, kept_asked
from edge_client.joining import Joining
from edge_client.membership import Membership
from floe.anchor import read_anchor, write_anchor
from floe.cli import floe
from floe.config import load
from floe.documents import JoinReply
from floe.errors import ConfigError, KeyFileError, StoreError
from floe.joincode import JoinCode, write_code
from floe.own_keys import load_keys
from floe.roster import Anchor

CODE = JoinCode(
    federation="ward", lineage="main", device="", root=ANN.key, sealing=EVE.key, token="ab" * 16,
    expires=2**32 - 1, host="broker.example", port=1884, lobby_port=1884, tls=False, version=1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Joining, "run", lambda *_, **__: False)  # says nothing
    return tmp_path


def join(*arguments: str, code: JoinCode | None = CODE, **changes: Any) -> str:
    """What it says; the code is `CODE` with these changes."""
    texts = [] if code is None else [write_code(replace(code, **changes))]
    result = CliRunner().invoke(floe, ["join", *texts, *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def asked(device: str = "ann") -> Asked:
    found = kept_asked(Path(f"state/device-{device}"))
    assert found is not None
    return found


def test_the_code_says_all_that_the_device_needs() -> None:
    join("--id", "ann")
    written = tomllib.loads(Path("floe.toml").read_text())
    assert written == {
        "federation": {"name": "ward"},
        "mqtt": {"host": "broker.example", "port": 1884, "tls": False, "lobby_port": 0, "login": "shared"},
        "rounds": {"lineage": "main"},
        "device": {"id": "ann"},
    }
    anchor = read_anchor(Path("federation.pub"))
    assert anchor is not None
    assert (anchor.federation, anchor.root) == ("ward", ANN.key)
    state = Path("state/device-ann")
    private = [state / "join.json", *(state / "keys").iterdir()]
    assert {oct(path.stat().st_mode & 0o777) for path in private} == {"0o600"}
    assert {oct(path.stat().st_mode & 0o777) for path in (state, state / "keys")} == {"0o700"}
    assert CODE.token not in Path("floe.toml").read_text()


def test_with_a_lobby_the_device_is_told_where_it_is() -> None:
    join("--id", "ann", tls=True, lobby_port=1885, login="passwords")
    mqtt = tomllib.loads(Path("floe.toml").read_text())["mqtt"]
    assert (mqtt["lobby_port"], mqtt["tls"], mqtt["login"]) == (1885, True, "passwords")


def test_the_same_code_asks_the_same_again_and_another_code_anew() -> None:
    join("--id", "ann")
    first = asked()
    join("--id", "ann")
    join(code=None)
    assert asked() == first
    join("--id", "ann", token="cd" * 16)
    assert asked().nonce != first.nonce
    assert asked().key == first.key


def test_a_configuration_that_differs_is_left_alone_and_the_lines_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("floe.toml").write_text('[mqtt]\nport = 1\n[federation]\nname = "other"\n')
    monkeypatch.setenv("FLOE_MQTT_HOST", "elsewhere")
    before = Path("floe.toml").read_text()
    with pytest.raises(ConfigError) as error:
        join("--id", "ann", login="passwords")
    said = str(error.value)
    assert '[federation] name = "ward" (now "other")' in said
    assert "[mqtt] port = 1884 (now 1)" in said
    assert '[mqtt] login = "passwords" (not set; by itself "shared")' in said
    assert '[mqtt] host = "broker.example" (now "elsewhere", by FLOE_MQTT_HOST)' in said
    assert "lineage" not in said
    assert Path("floe.toml").read_text() == before
    assert not Path("federation.pub").exists()


def test_devices_may_share_a_configuration() -> None:
    join("--id", "ann")
    Path("floe.toml").write_text(Path("floe.toml").read_text().replace('id = "ann"', ""))
    join(device="bob")
    join("--id", "cleo")
    assert sorted(path.name for path in Path("state").iterdir()) == ["device-ann", "device-bob", "device-cleo"]
    with pytest.raises(ConfigError, match="which device is this"):
        join()


def test_a_code_for_another_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="join with --id bob"):
        join("--id", "ann", device="bob")
    assert not Path("floe.toml").exists()


def test_a_name_that_no_device_may_have_is_refused_before_anything_is_written() -> None:
    for name in ("root", "broker", "chunk"):
        with pytest.raises(ConfigError, match=f"--id '{name}': no device is called root, broker or chunk"):
            join("--id", name)
    with pytest.raises(ConfigError, match="a certificate holds 57"):
        join("--id", "a" * 58, tls=True, lobby_port=1885, login="certificates")
    assert not Path("floe.toml").exists()
    join("--id", "a" * 58)
    assert asked("a" * 58).token == CODE.token


def test_a_folder_of_another_federation_is_left_alone() -> None:
    join("--id", "ann")
    with pytest.raises(KeyFileError, match="belongs to another federation"):
        join("--id", "ann", root=EVE.key)


def test_a_code_that_seems_expired_is_tried_for_clocks_are_wrong() -> None:
    assert "by this clock the code expired at" in join("--id", "ann", expires=1_000_000_000)
    assert asked().token == CODE.token


def test_without_a_code_nothing_begins() -> None:
    with pytest.raises(ConfigError, match="which federation"):
        join("--id", "ann", code=None)
    join("--id", "ann")
    with pytest.raises(KeyFileError, match="nothing has been asked from here"):
        join("--id", "bob", code=None)


def test_a_code_and_a_picture_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="not both"):
        join("--id", "ann", "--image", "code.png")


def test_what_was_asked_is_private_and_damage_is_told(tmp_path: Path) -> None:
    keep_asked(tmp_path, Asked.fresh(CODE, ANN.key))
    (tmp_path / "join.json").chmod(0o644)
    with pytest.raises(KeyFileError, match="lets others read it"):
        kept_asked(tmp_path)
    (tmp_path / "join.json").chmod(0o600)
    (tmp_path / "join.json").write_text("{}")
    with pytest.raises(StoreError, match="ask with a new code"):
        kept_asked(tmp_path)
    forget_asked(tmp_path)
    forget_asked(tmp_path)
    assert kept_asked(tmp_path) is None


def test_with_nothing_at_all_a_code_is_asked_for_first() -> None:
    with pytest.raises(ConfigError, match="which federation"):
        join(code=None)


def test_a_name_that_looks_like_an_option_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--id '-v': .* does not begin with a hyphen"):
        join(device="-v")
    assert list(Path().iterdir()) == []


def test_where_another_federation_is_nothing_is_written() -> None:
    write_anchor(Path("federation.pub"), Anchor("ward", EVE.key))
    with pytest.raises(KeyFileError, match="belongs to another federation"):
        join("--id", "ann")
    assert [path.name for path in Path().iterdir()] == ["federation.pub"]
    Path("federation.pub").unlink()
    write_anchor(Path("state/device-ann/enrolled"), Anchor("ward", EVE.key))
    with pytest.raises(KeyFileError, match="another root than before"):
        join("--id", "ann")
    assert [path.name for path in Path().iterdir()] == ["state"]


def test_a_variable_that_contradicts_the_code_is_named_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOE_MQTT_PORT", "7")
    with pytest.raises(ConfigError, match=r"port = 1884 \(now 7, by FLOE_MQTT_PORT\)"):
        join("--id", "ann")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("state", ["refused", "rejected"])
def test_what_was_refused_is_not_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch, state: Any) -> None:
    join("--id", "ann")
    place, anchor = folder / "state" / "device-ann", Anchor("ward", ANN.key)
    keys = load_keys(place, "ann")
    membership = Membership(place, anchor, "ann", "main", keys.sealing)
    monkeypatch.setattr(membership, "check_key", lambda message: None)
    joining = Joining(load(file=folder / "floe.toml"), keys, membership, asked(), place)
    monkeypatch.setattr(joining, "_request", object())
    answer = {"to": "ann", "to_key": keys.identity.key, "nonce": asked().nonce, "challenge": "", "version": 1}
    reply = JoinReply(federation="ward", sender="main", key=EVE.key, proof="", seq=1, state=state, **answer)
    with pytest.raises(KeyFileError, match=state[:6]):
        joining._on_reply(reply)
    assert kept_asked(place) is None
    joining._wire.close()
    with pytest.raises(KeyFileError, match="give the code"):
        join(code=None)
