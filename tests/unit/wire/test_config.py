"""Configuration: flag over environment over file over default; every message names file, key, value, allowed."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from floe.commands import commented, init
from floe.config import load, value_of, variable
from floe.errors import ConfigError
from floe.settings import ALIASES, SECTIONS, Config, describe


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty floe.toml in the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "floe.toml"
    path.write_text("")
    return path


def test_a_flag_beats_the_environment_beats_the_file_beats_the_default(toml: Path) -> None:
    assert load(environ={}).mqtt.port == 1883
    toml.write_text("[mqtt]\nport = 1")
    assert load(environ={}).mqtt.port == 1
    assert load(environ={"FLOE_MQTT_PORT": "2"}).mqtt.port == 2
    assert load({"mqtt.port": ("--port", "3")}, {"FLOE_MQTT_PORT": "2"}).mqtt.port == 3


def test_one_key_that_is_given_leaves_the_others_of_its_section(toml: Path) -> None:
    toml.write_text('[mqtt]\nport = 1\nhost = "a"')
    config = load({"mqtt.host": ("--host", "b")}, {})
    assert (config.mqtt.host, config.mqtt.port, config.mqtt.keepalive_s) == ("b", 1, 30)


def test_without_a_file_everything_has_its_default_and_paths_start_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(environ={})
    assert config == Config(folder=tmp_path)
    assert config.path("state") == tmp_path / "state"


def test_paths_start_at_the_folder_of_the_file(toml: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.toml").write_text("")
    assert load(environ={}, file="sub/other.toml").path("state") == tmp_path / "sub" / "state"
    assert load(environ={"FLOE_CONFIG": "sub/other.toml"}).folder == tmp_path / "sub"


def test_lists_come_from_commas_in_flags_and_environment(toml: Path) -> None:
    assert load({"rounds.members": ("--members", "ann, bob")}, {}).rounds.members == ("ann", "bob")
    assert load(environ={"FLOE_PLAN_HIDDEN": "8,4"}).plan.hidden == (8, 4)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True)])
def test_yes_and_no_can_be_given_as_text(text: str, value: bool) -> None:
    assert load(environ={"FLOE_MQTT_TLS": text}).mqtt.tls is value


def test_what_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"FLOE_MQTT_TLS = 'maybe': allowed is true \| false"):
        load(environ={"FLOE_MQTT_TLS": "maybe"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mqtt]\nprot = 1", r"floe\.toml: unknown key 'prot' in \[mqtt\]; known: host, port"),
        ("[mqt]\nport = 1", r"floe\.toml: unknown section \[mqt\]; known: federation, mqtt"),
        ("[mqtt]\nport = 70000", r"floe\.toml: \[mqtt\] port = 70000: allowed is whole number >= 1 and <= 65535"),
        ('[mqtt]\nport = "1"', r"\[mqtt\] port = '1': allowed is whole number"),
        ("[mqtt]\nport = true", r"\[mqtt\] port = True: allowed is whole number"),
        ('[security]\nsuite = "rot13"', r"\[security\] suite = 'rot13': allowed is auto \| chacha20-poly1305 \| aes"),
        ('[federation]\nname = "My"', r"\[federation\] name = 'My': allowed is text \[a-z0-9_-\]\{1,64\}"),
        ("[rounds]\nfraction = 0", r"\[rounds\] fraction = 0: allowed is number > 0 and <= 1"),
        ('[rounds]\nmembers = ["A"]', r"\[rounds\] members = \['A'\]: allowed is list of text"),
        ("[plan]\nepochs = nan", r"\[plan\] epochs = nan: allowed is whole number"),
        ("[plan]\nmu = nan", r"\[plan\] mu = nan: allowed is number >= 0 and <= 1000000.0"),
        ("mqtt = 1", r"floe\.toml: mqtt = 1: \[mqtt\] is a section"),
        ("[mqtt", r"floe\.toml: not TOML"),
        ('[models]\nmine = "os"', r'floe\.toml: \[models\] mine = .os.: allowed is "package.module:function"'),
    ],
)
def test_what_is_wrong_in_the_file_is_named_with_the_way_out(toml: Path, text: str, message: str) -> None:
    toml.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load(environ={})


def test_what_is_wrong_in_the_environment_or_a_flag_is_named_as_it_was_given(toml: Path) -> None:
    with pytest.raises(ConfigError, match="environment FLOE_MQTT_PORT = 'x': allowed is whole number"):
        load(environ={"FLOE_MQTT_PORT": "x"})
    with pytest.raises(ConfigError, match="--rounds = 'x': allowed is whole number >= 1"):
        load({"rounds.count": ("--rounds", "x")}, {})
    with pytest.raises(ConfigError, match="environment FLOE_MQTT_PROT: unknown; `floe init --print` lists all keys"):
        load(environ={"FLOE_MQTT_PROT": "1"})


@pytest.mark.parametrize(
    ("suite", "transfer_mb", "payload_mb"),
    [("chacha20-poly1305", 1024, 1), ("fernet", 1500, 2), ("auto", 1024, 1), ("aes-256-gcm", 100_000, 134)],
)
def test_the_largest_chunk_has_to_fit_into_a_packet(toml: Path, suite: str, transfer_mb: int, payload_mb: int) -> None:
    def given(transfer_mb: int, payload_mb: int) -> dict[str, str]:
        security = {"FLOE_SECURITY_SUITE": suite, "FLOE_SECURITY_MAX_TRANSFER_MB": str(transfer_mb)}
        return {**security, "FLOE_BROKER_MAX_PAYLOAD_MB": str(payload_mb)}

    with pytest.raises(
        ConfigError, match=rf"max_transfer_mb = {transfer_mb} .* max_payload_mb = {payload_mb} "
    ) as told:
        load(environ=given(transfer_mb, payload_mb))
    enough = int(str(told.value).partition("raise the second to ")[2].partition(",")[0])
    assert load(environ=given(transfer_mb, enough)).broker.max_payload_mb == enough


def test_a_packet_of_a_megabyte_is_enough_for_chunks_of_64_kib(toml: Path) -> None:
    toml.write_text("[security]\nmax_transfer_mb = 67\n[broker]\nmax_payload_mb = 1")
    assert load(environ={}).broker.max_payload_mb == 1


def test_a_file_that_is_named_must_be_there(toml: Path) -> None:
    for environ, file in (({}, "other.toml"), ({"FLOE_CONFIG": "other.toml"}, None)):
        with pytest.raises(ConfigError, match=r"other\.toml: no such file; `floe init` writes one"):
            load(environ=environ, file=file)


def test_an_empty_floe_config_names_no_file(toml: Path) -> None:
    toml.write_text("[mqtt]\nport = 1")
    assert load(environ={"FLOE_CONFIG": ""}).mqtt.port == 1


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("folder", r"floe\.toml: cannot be read: Is a directory"),
        ("dangling", r"floe\.toml \(a link to gone\): cannot be read: No such file"),
        ("loop", r"floe\.toml \(a link to floe\.toml\): cannot be read: Too many levels of symbolic links"),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"FLOE_CONFIG": "floe.toml"}])
def test_a_file_that_is_there_and_cannot_be_read_is_not_passed_over(
    toml: Path, kind: str, reason: str, environ: dict[str, str]
) -> None:
    toml.unlink()
    if kind == "folder":
        toml.mkdir()
    else:
        toml.symlink_to("gone" if kind == "dangling" else "floe.toml")
    with pytest.raises(ConfigError, match=reason):
        load(environ=environ)


def test_a_link_to_a_file_is_read_and_paths_start_beside_the_link(toml: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    toml.rename(tmp_path / "sub" / "real.toml").write_text("[mqtt]\nport = 1")
    toml.symlink_to("sub/real.toml")
    assert (load(environ={}).mqtt.port, load(environ={}).folder) == (1, tmp_path)


def test_a_byte_order_mark_is_not_part_of_the_file(toml: Path) -> None:
    toml.write_text("[mqtt]\nport = 1", encoding="utf-8-sig")
    assert load(environ={}).mqtt.port == 1


def test_a_wrong_value_is_told_also_where_a_stronger_source_overrides_it(toml: Path) -> None:
    toml.write_text("[mqtt]\nport = 'x'")
    with pytest.raises(ConfigError, match=r"floe\.toml: \[mqtt\] port = 'x'"):
        load({"mqtt.port": ("--port", "3")}, {"FLOE_MQTT_PORT": "2"})
    toml.write_text("")
    with pytest.raises(ConfigError, match="environment FLOE_MQTT_PORT = 'y'"):
        load({"mqtt.port": ("--port", "3")}, {"FLOE_MQTT_PORT": "y"})


@pytest.mark.parametrize("target", ["gone", "floe.toml"])
def test_init_replaces_no_link_that_leads_nowhere(toml: Path, target: str) -> None:
    toml.unlink()
    toml.symlink_to(target)
    result = CliRunner().invoke(init, [])
    assert isinstance(result.exception, ConfigError)
    assert "--force replaces it" in str(result.exception)
    assert toml.is_symlink()
    assert CliRunner().invoke(init, ["--force"]).exit_code == 0
    assert not toml.is_symlink()


def test_every_key_says_what_it_means_and_what_is_allowed() -> None:
    for section, struct in SECTIONS.items():
        for key in struct.__struct_fields__:
            meaning, allowed, _ = describe(section, key)
            assert meaning, (section, key)
            assert allowed, (section, key)


def test_no_two_keys_share_a_variable() -> None:
    found = [variable(section, key) for section, struct in SECTIONS.items() for key in struct.__struct_fields__]
    assert len(found) == len(set(found))


def test_the_commented_file_with_its_comments_removed_is_the_default(toml: Path) -> None:
    lines = commented().splitlines()
    live = [line.removeprefix("# ") if line.startswith("# ") and " = " in line else line for line in lines]
    keys = {f"# {key} = " for struct in SECTIONS.values() for key in struct.__struct_fields__}
    text = "\n".join(
        new if any(old.startswith(key) for key in keys) else old for old, new in zip(lines, live, strict=True)
    )
    assert {*tomllib.loads(text)} == {*SECTIONS, *ALIASES}
    toml.write_text(text)
    assert load(environ={}) == Config(folder=toml.parent, file=toml)


def test_a_long_value_is_not_repeated_whole() -> None:
    with pytest.raises(ConfigError) as error:
        value_of("plan", "hidden", ",".join(["0"] * 5000), "[plan] hidden")
    assert "[plan] hidden = '0,0," in str(error.value)
    assert "...: allowed is" in str(error.value)
    assert len(str(error.value)) < 400
