"""Publications off the wire: whatever the pieces that bytes come in, each is taken once, whole and in order."""

from __future__ import annotations

import random
import struct

import pytest

from tflotilla.host.telemetry import mqtt_frames


def length_of(body: bytes) -> bytes:
    length, encoded = len(body), bytearray()
    while True:
        encoded.append(length & 0x7F | (0x80 if length > 0x7F else 0))
        length >>= 7
        if not length:
            return bytes(encoded)


def publish(
    topic: bytes,
    payload: bytes,
    *,
    number: int | None = None,
    retained: bool = False,
    properties: bytes | None = None,
) -> bytes:
    """Write a PUBLISH packet; with `properties` it is MQTT 5's."""
    body = struct.pack("!H", len(topic)) + topic
    if number is not None:
        body += struct.pack("!H", number)
    if properties is not None:
        body += length_of(properties) + properties
    body += payload
    return bytes([0x30 | (0x02 if number is not None else 0) | retained]) + length_of(body) + body


PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x03\x00\x01\x01"


def test_publications_are_taken_in_order_with_what_is_owed_for_them() -> None:
    data = publish(b"a", b"1", number=7) + publish(b"b", b"", retained=True) + publish(b"c", b"3" * 300, number=65535)
    taken = mqtt_frames.take(data, properties=False)

    assert [(b"a", b"1", False), (b"b", b"", True), (b"c", b"3" * 300, False)] == taken.publications
    assert b"\x40\x02\x00\x07\x40\x02\xff\xff" == taken.acknowledgements
    assert (len(data), 0) == (taken.size, taken.foreign)


@pytest.mark.parametrize("size", [0, 5, 127, 128, 20_000])
def test_properties_of_version_5_are_passed_over(size: int) -> None:
    data = publish(b"a", b"1", number=1, properties=bytes(size))

    assert [(b"a", b"1", False)] == mqtt_frames.take(data, properties=True).publications


def test_another_packet_is_left_to_others_and_its_length_is_said() -> None:
    data = publish(b"a", b"1") + SUBACK + publish(b"b", b"2")
    taken = mqtt_frames.take(data, properties=False)

    assert [(b"a", b"1", False)] == taken.publications
    assert (len(publish(b"a", b"1")), len(SUBACK)) == (taken.size, taken.foreign)


@pytest.mark.parametrize(
    "data",
    [
        # QoS 2, and the QoS that doesn't exist.
        b"\x34" + publish(b"a", b"1", number=1)[1:],
        b"\x36" + publish(b"a", b"1", number=1)[1:],
        # An alias instead of a topic.
        publish(b"", b"1", number=1, properties=b"\x23\x00\x01"),
        # Lengths that say more than there is.
        b"\x30\x04\x00\x09ab",
        b"\x30\x01\x00",
        b"\x32\x03\x00\x01a",
        b"\x30\x04\x00\x01a\x09",
        b"\x30\x08\x00\x01a\xff\xff\xff\xff\x01",
        # A packet's length of five bytes.
        b"\x30\xff\xff\xff\xff\x01",
    ],
)
def test_what_is_malformed_or_rare_is_left_to_others(data: bytes) -> None:
    taken = mqtt_frames.take(data, properties=True)

    assert ([], b"", 0) == (taken.publications, taken.acknowledgements, taken.size)
    assert taken.foreign > 0


@pytest.mark.parametrize("cut", range(1, len(publish(b"topic", b"payload" * 30, number=1))))
def test_of_a_packet_that_is_cut_off_nothing_is_taken(cut: int) -> None:
    data = publish(b"topic", b"payload" * 30, number=1)[:cut]
    taken = mqtt_frames.take(data, properties=False)

    assert ([], 0, 0) == (taken.publications, taken.size, taken.foreign)


@pytest.mark.parametrize("seed", range(20))
def test_in_whatever_pieces_bytes_come_everything_is_taken_once(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same each time
    expected, data = [], b""
    for number in range(1, 60):
        if chance.random() < 0.2:
            data += chance.choice((PINGRESP, SUBACK))
            continue
        payload = chance.randbytes(chance.choice((0, 1, 100, 200, 20_000)))
        data += publish(b"t/%d" % number, payload, number=number, properties=bytes(chance.choice((0, 3, 200))))
        expected.append((b"t/%d" % number, payload, False))
    found, left = [], b""
    while data or left:
        piece = chance.randrange(1, 5000)
        left, data = left + data[:piece], data[piece:]
        while True:
            taken = mqtt_frames.take(left, properties=True)
            found += taken.publications
            left = left[taken.size + taken.foreign :]
            if not taken.foreign:
                break

    assert expected == found


def test_rubbish_never_raises() -> None:
    chance = random.Random(3)  # noqa: S311 - the same each time
    for _ in range(20_000):
        data = bytes([chance.choice((0x30, 0x32, 0x33, 0x3D, 0xE0))]) + chance.randbytes(chance.randrange(30))
        taken = mqtt_frames.take(data, properties=chance.random() < 0.5)
        assert 0 <= taken.size + taken.foreign <= len(data)


@pytest.mark.parametrize("properties", [False, True])
@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 20_000, 3_000_000])
def test_a_publication_that_is_written_is_read_back(size: int, properties: bool) -> None:  # noqa: FBT001 - a parameter
    data = mqtt_frames.publication("tflotilla/barn/pi-1/ack", bytes(size), properties=properties)
    taken = mqtt_frames.take(data + data, properties=properties)

    assert [(b"tflotilla/barn/pi-1/ack", bytes(size), False)] * 2 == taken.publications
    assert b"" == taken.acknowledgements
