"""MQTT publications off the wire and onto it, many at a time: what a connection spends nearly all of its time on.

Rules it keeps: only whole PUBLISH packets of QoS 0 and 1 are taken, in order; at anything else (another packet, one
that is cut off or malformed) it stops, and says how far it came.
What it does NOT do: sockets; other packets and what is wrong with malformed ones, which is paho's business.
"""

from __future__ import annotations

from dataclasses import dataclass

_PUBLISH = 0x30
_QOS_1 = 0x02
_QOS_2 = 0x04
_RETAIN = 0x01
_PUBACK = b"\x40\x02"
_MOST_LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What stood at the front of the bytes."""

    #: (topic, payload, retained).
    publications: list[tuple[bytes, bytes, bool]]
    #: The PUBACK packets that are owed for them.
    acknowledgements: bytes
    #: How many bytes that was.
    size: int
    #: What follows is a whole packet that somebody else must read, of so many bytes; 0 when more bytes are needed.
    foreign: int


def take(data: bytes, *, properties: bool) -> Taken:
    """Take the publications from the front of `data`; with `properties` it is MQTT 5's."""
    publications: list[tuple[bytes, bytes, bool]] = []
    owed: list[bytes] = []
    at, size, foreign = 0, len(data), 0
    while at + 1 < size:
        # The remaining length: seven bits a byte, the least first.
        body, length, shift = at + 1, 0, 0
        while True:
            byte = data[body]
            body += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 or body == size or body - at > _MOST_LENGTH_BYTES:  # noqa: PLR2004 - the eighth bit
                break
        if byte >= 0x80:  # noqa: PLR2004
            # More than four bytes is no length: paho hangs up over it.
            foreign = body - at if body - at > _MOST_LENGTH_BYTES else 0
            break
        end = body + length
        if end > size:
            break
        command = data[at]
        found = None if command & 0xF4 != _PUBLISH else _publication(data, command, body, end, properties=properties)
        if found is None:
            foreign = end - at
            break
        topic, payload, number = found
        publications.append((topic, payload, command & _RETAIN != 0))
        if number:
            owed.append(number)
        at = end
    return Taken(
        publications=publications,
        acknowledgements=_PUBACK + _PUBACK.join(owed) if owed else b"",
        size=at,
        foreign=foreign,
    )


def publication(topic: str, payload: bytes, *, properties: bool) -> bytes:
    """Return the packet of a publication at QoS 0; with `properties` it is MQTT 5's."""
    name = topic.encode()
    body = b"".join((len(name).to_bytes(2, "big"), name, b"\x00" if properties else b"", payload))
    packet, length = bytearray((_PUBLISH,)), len(body)
    while length > 0x7F:  # noqa: PLR2004 - seven bits a byte
        packet.append(length & 0x7F | 0x80)
        length >>= 7
    packet.append(length)
    return bytes(packet) + body


def _publication(
    data: bytes, command: int, at: int, end: int, *, properties: bool
) -> tuple[bytes, bytes, bytes] | None:
    """Return topic, payload and packet number (empty at QoS 0); None for what isn't well-formed."""
    start = at + 2
    if start > end:
        return None
    at = start + (data[at] << 8 | data[at + 1])
    topic, number = data[start:at], b""
    if command & _QOS_1:
        number = data[at : at + 2]
        at += 2
    if at + properties > end:
        return None
    if properties:
        length = data[at]
        if length < 0x80:  # noqa: PLR2004 - nearly always: none, or few
            at += 1 + length
        else:
            length, shift = 0, 0
            while True:
                if at >= end or shift > 21:  # noqa: PLR2004 - four bytes of seven bits
                    return None
                byte = data[at]
                at += 1
                length |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:  # noqa: PLR2004
                    break
            at += length
        if at > end:
            return None
    # No topic would be an alias, and we allow none.
    return (topic, data[at:end], number) if topic else None
