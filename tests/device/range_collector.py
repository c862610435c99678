"""A collector that shares the work with others: `python -m tests.device.range_collector PORT FILE`.

Numbered reports of the tests' board are written to FILE, "boot seq" a line, and once that is on disk acknowledged by
ranges; never "all up to", for the others have what is missing here. It writes a line when it listens.
"""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.device import homes_made
from tflotilla.device.acknowledged import union
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.messages import Ack, Message

CHANNELS: tuple[topics.Channel, ...] = ("metrics", "predictions", "event", "deployment", "benchmark")
_GATHER_S = 0.2


def main() -> None:
    """Collect until killed."""
    arrived: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.reconnect_delay_set(1, 1)

    def on_connect(*_: object) -> None:
        for channel in CHANNELS:
            client.subscribe(f"$share/collectors/{topics.topic(homes_made.FLEET, homes_made.BOARD, channel)}", qos=1)

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        said = messages.parse(message.topic, bytes(message.payload))[1]
        arrived.put((said.boot, said.seq))

    def on_subscribe(*_: object) -> None:
        os.write(1, b"listening\n")

    client.on_connect = on_connect
    client.on_message = on_message
    client.on_subscribe = on_subscribe
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    with Path(sys.argv[2]).open("a") as file:
        while True:
            batch = [arrived.get()]
            try:
                while True:
                    batch.append(arrived.get(timeout=_GATHER_S))
            except queue.Empty:
                pass
            file.writelines(f"{boot} {seq}\n" for boot, seq in batch)
            file.flush()
            os.fsync(file.fileno())
            for boot in {boot for boot, _ in batch}:
                also = union((seq, seq) for of, seq in batch if of == boot)
                body = Ack(boot=boot, up_to=0, also=also)
                ack = Message(board=homes_made.BOARD, boot="c", seq=0, time=0.0, bundle=None, body=body)
                client.publish(topics.topic(homes_made.FLEET, homes_made.BOARD, "ack"), ack.to_bytes(), qos=0)


if __name__ == "__main__":
    main()
