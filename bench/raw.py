"""What Floe's transport is measured against: paho to paho, two processes, QoS 1, nothing done with what arrives.

`python -m bench.raw receive|send PORT CHUNKS BYTES` prints the moment when it was done, respectively began.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from floe.session import WINDOW

TOPIC = "floe/floe/device/raw/chunk"
WAIT_S = 600.0


def receive(client: Client, chunks: int) -> float:
    """When the last chunk came."""
    there, came = threading.Event(), 0

    def count(_: Client, __: Any, message: MQTTMessage) -> None:
        nonlocal came
        came += 1
        if came == chunks:
            there.set()

    client.on_message = count
    client.on_subscribe = lambda *_: print("ready", flush=True)
    client.subscribe(TOPIC, qos=1)
    if not there.wait(WAIT_S):
        raise TimeoutError(f"{came} of {chunks} chunks came")
    return time.monotonic()


def send(client: Client, chunks: int, payload: bytes) -> float:
    """When the first chunk was sent; returns when the last is acknowledged."""
    room, began = threading.Semaphore(WINDOW), time.monotonic()
    client.on_publish = lambda *_: room.release()
    for _ in range(chunks):
        room.acquire()
        client.publish(TOPIC, payload, qos=1)
    for _ in range(WINDOW):
        room.acquire()
    return began


def main() -> None:
    what, port, chunks, size = sys.argv[1], *map(int, sys.argv[2:])
    client = Client(CallbackAPIVersion.VERSION2, f"raw-{what}", protocol=MQTTProtocolVersion.MQTTv5)
    client.max_inflight_messages_set(WINDOW)
    connected = threading.Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    connected.wait(WAIT_S)
    print(receive(client, chunks) if what == "receive" else send(client, chunks, bytes(size)), flush=True)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    main()
