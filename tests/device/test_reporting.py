"""Envelopes around finished bodies, and the numbers of reports."""

from __future__ import annotations

import json

import pytest

from tflotilla.device.reporting import Envelopes, new_boot
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.messages import Availability, Predictions

DIGEST = "ab" * 32


@pytest.fixture
def envelopes() -> Envelopes:
    return Envelopes(board="pi-1", boot="b0", clock=lambda: 1700000000.25)


def test_a_finished_body_is_wrapped_without_being_touched(envelopes: Envelopes) -> None:
    body = b'{"results":[{"item":"a \\"quoted\\" {name}","stages_ns":{},"time":1.5,"top":[]}]}'

    payload = envelopes.around(body, seq=envelopes.next_seq(), bundle=DIGEST)

    assert payload.endswith(b"," + body[1:])
    _, message = messages.parse("tflotilla/t/pi-1/predictions", payload)
    assert (message.board, message.boot, message.seq, message.time) == ("pi-1", "b0", 1, 1700000000.25)
    assert message.bundle == DIGEST
    assert isinstance(message.body, Predictions)
    assert message.body.results[0].item == 'a "quoted" {name}'


def test_an_empty_body_is_a_message_too(envelopes: Envelopes) -> None:
    assert json.loads(envelopes.around(b"{}", seq=5, bundle=None)) == {
        "schema": 1,
        "board": "pi-1",
        "boot": "b0",
        "seq": 5,
        "time": 1700000000.25,
        "bundle": None,
    }


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'{"half":', b'"text"'])
def test_what_is_no_object_is_refused(envelopes: Envelopes, body: bytes) -> None:
    with pytest.raises(ValueError, match="no JSON object"):
        envelopes.around(body, seq=1, bundle=None)


def test_numbers_count_from_one_without_a_gap(envelopes: Envelopes) -> None:
    assert [envelopes.next_seq() for _ in range(3)] == [1, 2, 3]


def test_what_describes_the_present_has_no_number(envelopes: Envelopes) -> None:
    _, message = messages.parse(
        "tflotilla/t/pi-1/availability", envelopes.unnumbered(Availability(status="online"), bundle=None)
    )

    assert message.seq == 0
    assert message.body == Availability(status="online")


def test_boots_differ_although_a_clock_stands_still() -> None:
    assert new_boot(lambda: 0.0) != new_boot(lambda: 0.0)
