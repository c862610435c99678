"""What is derived for those who listen: the card of a bundle, and a window as plain numbers."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.device import running_bundles
from tflotilla.device import present
from tflotilla.device.window import Window
from tflotilla.shared.contract import codec, digest, messages
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.manifest import MANIFEST, MODEL, Manifest, Reference
from tflotilla.shared.contract.messages import Candidate, Flat, ModelCard

if TYPE_CHECKING:
    from pathlib import Path

TOP = (Candidate(label="two", index=2, score=0.9),)
ENVELOPE = b'{"schema":1,"board":"pi-1","boot":"b","seq":0,"time":12.5,'


def window(count: int, *, temperature_c: float | None = 48.5, throttled: bool | None = False) -> bytes:
    one = Window(with_results=False, low_confidence_below=0.5)
    for number in range(count):
        top = TOP if number % 4 else (Candidate(label="one", index=1, score=0.1),)
        one.add("x", 1.0, (1_000, 20_000, 300_000 + number, 4_000, 325_000 + number), top)
    one.errors, one.unreadable = 1, 2
    return one.metrics(
        window_ns=2_000_000_000, dropped=3, rss_bytes=50 << 20, temperature_c=temperature_c, throttled=throttled
    )


def test_a_card_says_what_the_manifest_says(tmp_path: Path) -> None:
    made = running_bundles.write(tmp_path / "b")
    data = (made / MANIFEST).read_bytes()
    reference = Reference(samples=3, labels={"two": 3}, scores=(0,) * 9 + (3,))
    manifest = dataclasses.replace(Manifest.from_bytes(data), reference=reference)

    assert present.card(digest.of_bytes(data), manifest) == ModelCard(
        digest=digest.of_bytes(data),
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        scheme=manifest.scheme,
        size_bytes=(made / MODEL).stat().st_size,
        evaluation=manifest.evaluation,
        reference=reference,
    )


def test_a_window_as_plain_numbers() -> None:
    body = present.flat_body(window(8))
    found: dict[str, Any] = json.loads(body)

    assert found == {
        "window_s": 2.0,
        "count": 8,
        "errors": 1,
        "unreadable": 2,
        "dropped": 3,
        "inferences_per_second": 4.0,
        "rss_mib": 50.0,
        "decode_p50_ms": 0.001,
        "decode_p99_ms": 0.001,
        "preprocess_p50_ms": 0.02,
        "preprocess_p99_ms": 0.02,
        "invoke_p50_ms": 0.3,
        "invoke_p90_ms": 0.3,
        "invoke_p99_ms": 0.3,
        "postprocess_p50_ms": 0.004,
        "postprocess_p99_ms": 0.004,
        "total_p50_ms": 0.325,
        "total_p90_ms": 0.325,
        "total_p99_ms": 0.325,
        "mean_score": 0.7,
        "top_label_share": 0.75,
        "low_confidence_share": 0.25,
        "temperature_c": 48.5,
        "throttled": 0,
    }


def test_what_is_not_known_is_left_out() -> None:
    found = json.loads(present.flat_body(window(0, temperature_c=None, throttled=None)))

    assert set(found) == {"window_s", "count", "errors", "unreadable", "dropped", "inferences_per_second", "rss_mib"}


@pytest.mark.parametrize("count", [0, 5])
def test_plain_numbers_are_a_message_of_the_contract(count: int) -> None:
    body = present.flat_body(window(count))
    said = messages.parse("tflotilla/t/pi-1/flat", ENVELOPE + body[1:])[1].body

    assert isinstance(said, Flat)
    assert {name: value for name, value in codec.encode(said).items() if value is not None} == json.loads(body)


def test_plain_numbers_of_what_is_no_window_are_refused() -> None:
    with pytest.raises(ContractError, match="metrics"):
        present.flat_body(b'{"window_s":1.0}')
