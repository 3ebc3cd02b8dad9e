"""Devices that do not fit: too few rows, other features, accuracy only, an id that is taken. Each is told."""

from __future__ import annotations

import shutil
import time

from helpers.federation import Federation
from helpers.proxy import PASS, Message, Proxy, Verdict

TRAINED = "SELECT device FROM updates WHERE task = 'train' AND outcome = 'accepted' ORDER BY device"


def outcome(federation: Federation, device: str, task: str) -> dict[str, object]:
    return federation.until("SELECT * FROM updates WHERE device = ? AND task = ?", device, task)


def test_sums_over_too_few_rows_are_refused_and_the_others_go_on(federation: Federation) -> None:
    federation.configure({"rounds": {"count": 1}, "plan": {"model": "linear"}})  # torch, as users have it
    federation.features("few", rows=9)
    federation.aggregator()
    few = federation.client("few")
    federation.client("a")
    federation.finish()
    row = outcome(federation, "few", "sums")
    assert row["outcome"] == "rejected"
    assert "9 training rows are too few" in str(row["detail"])
    assert "9 training rows are too few" in few.said()
    assert federation.query("SELECT devices FROM models WHERE round = 0") == [{"devices": 1}]


def test_devices_whose_features_differ_are_told_in_what(federation: Federation) -> None:
    federation.configure({"rounds": {"count": 1, "devices": 1}, "plan": {"scaling": "none"}})
    federation.aggregator()
    federation.client("a")
    federation.until("SELECT * FROM models WHERE round = 0")
    wrong = {
        "more": (("a", "b", "c", "d"), "not in the federation: 'd'"),
        "other": (("a", "b", "humidity"), "missing here: 'c'; not in the federation: 'humidity'"),
        "order": (("b", "a", "c"), "another order: feature 0 is 'b', the federation has 'a'"),
    }
    federation.finish()
    federation.close()
    federation.configure({"rounds": {"count": 3, "devices": 4}, "plan": {"scaling": "none", "model": "held"}})
    gate = federation.folder / "hold-a-2"
    gate.touch()
    federation.aggregator()
    for device, (names, _) in wrong.items():
        federation.features(device, names=names)
        federation.client(device)
    federation.client("a")
    for device, (_, words) in wrong.items():
        row = outcome(federation, device, "train")
        assert (row["outcome"], row["reason"]) == ("rejected", "device")
        assert words in str(row["detail"])
        assert words in (federation.folder / "logs" / f"{device}.log").read_text()
    gate.unlink()
    federation.until("SELECT * FROM models WHERE round = 3")


def test_a_device_that_reports_accuracy_only_sends_no_weights_and_the_others_go_on(federation: Federation) -> None:
    federation.configure({"rounds": {"count": 1}})
    with Proxy(federation.port) as proxy:
        federation.aggregator()
        federation.client("secretive", "--report", "accuracy", port=proxy.port)
        federation.client("a")
        federation.finish()
    assert proxy.count(upward=True, containing="/chunk/")[0].total() == 0
    assert federation.query(TRAINED) == [{"device": "a"}, {"device": "secretive"}]
    row = federation.query("SELECT * FROM updates WHERE device = 'secretive' AND task = 'train'")[0]
    assert row["accuracy"] is not None
    assert (row["sha256"], row["bytes"]) == (None, 0)
    assert federation.query("SELECT devices FROM models WHERE round = 1") == [{"devices": 1}]


def test_a_plan_of_accuracy_only_moves_no_weights_at_all(federation: Federation) -> None:
    federation.configure({"plan": {"report": "accuracy"}})
    with Proxy(federation.port) as proxy:
        federation.aggregator()
        for device in ("a", "b"):
            federation.client(device, port=proxy.port)
        federation.finish()
    for upward in (True, False):
        assert proxy.count(upward=upward, containing="/chunk/")[0].total() == 0
    assert len(federation.query(TRAINED)) == 4
    assert federation.models() == {}


def test_a_second_process_on_the_same_state_is_refused_at_once(federation: Federation) -> None:
    federation.client("a")
    federation.wait(lambda: (federation.folder / "state" / "device-a" / "lock").exists(), "the first was to start")
    time.sleep(0.2)
    second = federation.start("second", "client", "--id", "a", "--data", "features/a")
    assert second.wait() == 6
    assert "another device is running with this state folder" in second.said()


def test_a_second_device_under_the_id_of_one_that_is_online_ends_at_once(federation: Federation) -> None:
    federation.configure({"rounds": {"count": 1, "devices": 2}})
    federation.aggregator()
    first = federation.client("a")
    federation.until("SELECT * FROM devices WHERE device = 'a' AND state = 'online'")
    elsewhere = federation.configure({"paths": {"state": "elsewhere/state"}}, name="second.toml")
    second = federation.start("second", "client", "--config", str(elsewhere), "--id", "a", "--data", "features/a")
    assert second.wait() == 5
    assert "another device is known under the name 'a', and online: choose another --id" in second.said()
    federation.client("b")
    federation.finish()
    assert first.running
    assert federation.query("SELECT * FROM events WHERE device = 'a' AND reason = 'unknown-key'")


def test_two_devices_with_one_id_and_one_key_do_not_take_turns_for_ever(federation: Federation) -> None:
    """The state folder was copied to a second machine."""
    first = federation.client("a")
    federation.wait(lambda: "connected" in first.said(), "the first was to connect")
    first.kill()
    copy = federation.folder / "copy"
    (federation.folder / "state").rename(copy)
    elsewhere = federation.configure({"paths": {"state": "copy"}}, name="copy.toml")
    again = federation.start("again", "client", "--config", str(elsewhere), "--id", "a", "--data", "features/a")
    federation.wait(lambda: "connected" in again.said(), "the original was to connect")
    shutil.copytree(copy, federation.folder / "copy2")
    other = federation.configure({"paths": {"state": "copy2"}}, name="copy2.toml")
    second = federation.start("second", "client", "--config", str(other), "--id", "a", "--data", "features/a")
    assert again.wait() == 4
    assert "two with one id and one key?" in again.said()
    assert second.running


def test_a_manifest_delayed_past_the_deadline_is_late_and_the_device_is_told(federation: Federation) -> None:
    federation.configure({"rounds": {"count": 2, "quorum": 1, "deadline_s": 3.0}, "plan": {"scaling": "none"}})

    def late(message: Message) -> Verdict:
        return Verdict(delay_s=5.0) if message.upward and "/main/1/manifest" in message.topic else PASS

    with Proxy(federation.port, late) as proxy:
        federation.aggregator()
        slow = federation.client("slow", port=proxy.port)
        federation.client("a")
        row = federation.until("SELECT * FROM updates WHERE device = 'slow' AND round = 1 AND task = 'train'")
        federation.wait(lambda: "train 1 late" in slow.said(), "the device was to be told")
    assert (row["outcome"], row["reason"]) == ("late", "round")
