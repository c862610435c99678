"""Reading fast gives what reading by the contract gives, and nothing that boards send makes it crash."""

from __future__ import annotations

import copy
import json
import random
import re
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.telemetry.fake_board import metrics, predictions, state
from tflotilla.host.telemetry import decoding
from tflotilla.host.telemetry.inbox import Received
from tflotilla.host.telemetry.live import Live
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.errors import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "contract.md").read_text()
EXAMPLES = [
    (name, text)
    for name, text in re.findall(r"<!-- example: (\S+) -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)
    if name in topics.CHANNELS
]
METRICS = "tflotilla/barn/pi-1/metrics"


def sketched() -> messages.Metrics:
    sketch = messages.LatencySketch(relative_error=0.005, indices=(1012, 1013, 1020), counts=(4, 5, 1))
    stage = messages.StageLatency(
        count=10,
        mean_ns=25_000.0,
        min_ns=24_000,
        p50_ns=25_000,
        p90_ns=25_500,
        p99_ns=26_000,
        max_ns=26_000,
        sketch=sketch,
    )
    return messages.Metrics(
        window_s=1.0,
        count=10,
        errors=0,
        dropped=0,
        stages={"invoke": stage, "total": stage},
        labels=(messages.LabelCount(label="seven", count=10, mean_score=0.9, std_score=0.01),),
        rss_bytes=50 << 20,
        scores=(0, 0, 0, 0, 0, 0, 0, 0, 0, 10),
        low_confidence=0,
        throttled=False,
        sample=predictions(1.0).results,
    )


def payload(body: Any, *, board: str = "pi-1", boot: str = "boot-1", seq: int = 1) -> bytes:  # noqa: ANN401
    return messages.Message(board=board, boot=boot, seq=seq, time=1.5, bundle="ab" * 32, body=body).to_bytes()


BODIES: list[tuple[str, bytes]] = [
    *((f"tflotilla/farm/pi-1/{name}", text.encode()) for name, text in EXAMPLES),
    (METRICS, payload(sketched())),
    (METRICS, payload(metrics())),
    ("tflotilla/barn/pi-1/predictions", payload(predictions(1.0, 2.0))),
    ("tflotilla/barn/pi-1/state", payload(state(), seq=0)),
    ("tflotilla/barn/pi-1/flat", payload(messages.Flat(window_s=1, count=1, errors=0, unreadable=0, dropped=0,
                                                       inferences_per_second=1, rss_mib=1), seq=0)),
]  # fmt: skip


def parsed(topic: str, data: bytes) -> messages.Message[Any] | None:
    """Return what the contract's own reader says."""
    try:
        return messages.parse(topic, data)[1]
    except ContractError:
        return None


@pytest.mark.parametrize(("topic", "data"), BODIES, ids=[topic for topic, _ in BODIES])
def test_every_example_is_read_as_the_contract_reads_it(topic: str, data: bytes) -> None:
    expected = parsed(topic, data)

    assert expected is not None
    assert expected == decoding.understood(topic, data)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """Every place in a JSON document."""
    if at:
        yield at
    if isinstance(document, dict):
        for key in document:
            yield from places(document[key], (*at, key))
    elif isinstance(document, list):
        for index in range(len(document)):
            yield from places(document[index], (*at, index))


STRANGE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 2**53, 2**62, 0.5, -0.5, 1e300, 1e-300, "", "online", "seven", "ÿ\u0000\n", [], {},
    [1], [[1, 2]], {"a": 1}, [None], "7", "1.0", 3.0,
)  # fmt: skip


def mutated(document: Any, chance: random.Random) -> Any:  # noqa: ANN401
    """Return a copy with one place changed, taken out, or doubled."""
    changed = copy.deepcopy(document)
    *way, last = chance.choice(list(places(document)))
    holder = changed
    for step in way:
        holder = holder[step]
    what = chance.randrange(4)
    if what == 0:
        del holder[last]
    elif what == 1 and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[last]))
    elif what == 1:
        holder["unknown"] = copy.deepcopy(holder[last])
    else:
        holder[last] = copy.deepcopy(chance.choice(STRANGE))
    return changed


def told_apart(message: messages.Message[Any]) -> bool:
    """Whether it is among the differences that `decoding` lists."""
    acked_by_other_than_pairs = isinstance(message.body, messages.Ack) and any(
        len(each) != 2 for each in message.body.also
    )
    return (
        not 0 <= message.seq < 2**53 or not message.boot.isprintable() or not message.boot or acked_by_other_than_pairs
    )


def test_changed_messages_are_read_or_refused_as_the_contract_does() -> None:
    chance = random.Random(7)  # noqa: S311 - the same each time
    differing = []
    read = refused = 0
    for topic, data in BODIES:
        document = json.loads(data)
        for _ in range(150):
            changed = mutated(document, chance)
            while chance.random() < 0.3:
                changed = mutated(changed, chance)
            text = json.dumps(changed).encode()
            expected, found = parsed(topic, text), decoding.understood(topic, text)
            read, refused = read + (found is not None), refused + (found is None)
            listed = changed.get("schema") is True or (expected is not None and told_apart(expected))
            if expected != found and not listed:
                differing.append((topic, text, expected, found))

    assert [] == differing
    assert min(read, refused) > 500


@pytest.mark.parametrize(
    "data",
    [
        payload(sketched()).replace(b'"seq":1', b'"seq":-1'),
        payload(sketched()).replace(b'"seq":1', b'"seq":9007199254740992'),
        payload(sketched()).replace(b'"seq":1', b'"seq":' + b"9" * 5000),
        payload(sketched()).replace(b'"count":10', b'"count":18446744073709551616'),
        payload(sketched()).replace(b'"count":10', b'"count":' + b"1" * 400),
        payload(sketched()).replace(b'"time":1.5', b'"time":NaN'),
        payload(sketched()).replace(b'"time":1.5', b'"time":1e999'),
        payload(sketched()).replace(b'"time":1.5', b'"time":' + b"1" * 400),
        payload(sketched()).replace(b'"time":1.5', b'"time":"1.5"'),
        payload(sketched()).replace(b"boot-1", b"boot-\\n1"),
        payload(sketched()).replace(b"boot-1", b"b" * 129),
        payload(sketched()).replace(b"boot-1", b""),
        payload(sketched()).replace(b"boot-1", b"\xff\xfe"),
        payload(sketched()).replace(b"boot-1", b"\\ud800"),
        payload(sketched()).replace(b"seven", b"\xff"),
        payload(sketched()).replace(b'"schema":1', b'"schema":2'),
        payload(sketched(), board="pi-2"),
        payload(sketched())[:-1],
        payload(sketched()) + b"}",
        payload(sketched()).decode().encode("utf-16"),
        b"",
        b"null",
        b"[]",
        b"\xef\xbb\xbf" + payload(sketched()),
        b"[" * 100_000,
        b'{"schema":1,"x":' + b'{"x":' * 100_000,
        b"9" * 1_000_000,
        b" " * decoding.MOST_PAYLOAD_BYTES + payload(sketched()),
        payload(sketched()).replace(b"[1012,1013,1020]", b"[1012,1013,9000000]"),
        payload(sketched()).replace(b"[1012,1013,1020]", b"[-1,1013,1020]"),
        payload(sketched()).replace(b"[1012,1013,1020]", b"[1013,1012,1020]"),
        payload(sketched()).replace(b'"relative_error":0.005', b'"relative_error":1e-300'),
    ],
)
def test_garbage_is_none(data: bytes) -> None:
    assert decoding.understood(METRICS, payload(sketched())) is not None
    assert decoding.understood(METRICS, data) is None


@pytest.mark.parametrize(
    "topic", ["tflotilla/barn/pi-1/unknown", "tflotilla/barn/PI/metrics", "other/barn/pi-1/metrics", "\ufffd", ""]
)
def test_a_topic_that_is_not_ours_is_none(topic: str) -> None:
    assert decoding.understood(topic, payload(metrics())) is None
    assert decoding.envelope(topic, payload(metrics())) is None


def test_long_rows_of_digits_that_are_no_whole_numbers_are_no_garbage() -> None:
    """Fractions and names may have as many as they like."""
    body = messages.Event(level="info", kind="input", message="9" * 40, detail={"share": 0.00012345678901234567})

    assert body == decoding.understood("tflotilla/barn/pi-1/event", payload(body)).body  # type: ignore[union-attr]


def test_an_envelope_is_read_without_its_body() -> None:
    found = decoding.envelope(METRICS, payload(metrics()).replace(b'"stages"', b'"phases"'))

    assert found is not None
    assert (found[1].board, found[1].boot, found[1].seq, found[1].time) == ("pi-1", "boot-1", 1, 1.5)
    assert decoding.understood(METRICS, payload(metrics()).replace(b'"stages"', b'"phases"')) is None


def broken(data: bytes, chance: random.Random) -> bytes:
    """Return a payload with bytes changed, cut out, put in, or nested."""
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(damaged)) if damaged else 0
        what = chance.randrange(6)
        if what == 0 and damaged:
            damaged[at] = chance.randrange(256)
        elif what == 1:
            del damaged[at : at + chance.randrange(40)]
        elif what == 2:
            damaged[at:at] = chance.randbytes(chance.randrange(8))
        elif what == 3:
            damaged[at:at] = chance.choice([b"[" * 3000, b"9" * 400, b"1e999", b"NaN", b"-", b"null", b"\\ud800", b'"'])
        elif what == 4:
            damaged[at:at] = damaged[at // 2 : at // 2 + chance.randrange(200)]
        else:
            digits = re.search(rb"\d+", bytes(damaged[at:]))
            if digits:
                huge = chance.choice(
                    [b"0", b"-1", b"9223372036854775807", b"9223372036854775808", b"1" * 300, b"1e308"]
                )
                damaged[at + digits.start() : at + digits.end()] = huge
    return bytes(damaged)


def test_a_hundred_thousand_broken_payloads_crash_nothing_and_fill_no_memory() -> None:
    """What is not garbage is folded as dashboards do it, and its figures are asked for."""
    chance = random.Random(6)  # noqa: S311 - the same each time
    live = Live("barn")
    bodies = [(topic.replace("/farm/", "/barn/"), data) for topic, data in BODIES]
    tracemalloc.start()
    try:
        for _ in range(100):
            batch = []
            for _ in range(1000):
                topic, data = chance.choice(bodies)
                batch.append(Received(topic=topic, payload=broken(data, chance), at=1.0))
            live.hear(batch)
            for of_board in live.totals.values():
                for totals in of_board.values():
                    assert all(summed.percentile(99) is None or summed.count for summed in totals.stages.values())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert live.garbage > 50_000
    assert set(live.boards) == {"pi-1"}
    assert held < 20 << 20
