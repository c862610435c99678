"""Session frames: one line each, small, and read back as they were written."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.shared.random_values import value_of
from tflotilla.shared.contract import session
from tflotilla.shared.contract.errors import ContractError
from tflotilla.shared.contract.session import Hello, Reply, Request, to_line

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: dict[type, Callable[[bytes], Any]] = {
    Hello: session.hello_from_line,
    Request: session.request_from_line,
    Reply: session.reply_from_line,
}


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_a_frame_is_one_line_that_is_read_back_as_it_was_written(kind: type) -> None:
    rng = random.Random(kind.__name__)  # noqa: S311 - a test wants the same frames each time
    for _ in range(100):
        frame: Any = value_of(kind, rng)
        line = to_line(frame)

        assert READERS[kind](line) == frame
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")


def test_a_frame_does_not_carry_what_is_not_said() -> None:
    assert to_line(Request(verb="bye")) == b'{"verb":"bye"}\n'
    assert to_line(Reply()) == b'{"done":true}\n'


@pytest.mark.parametrize("line", [b"", b"\n", b"Last login: today\n", b"[]\n", b'{"verb":', b"\x00\xff\n"])
@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_a_line_of_something_else_is_refused_naming_the_frame(kind: type, line: bytes) -> None:
    with pytest.raises(ContractError, match=f"^session {kind.__name__.lower()}"):
        READERS[kind](line)


def test_an_unknown_verb_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ContractError, match=r'verb: "reboot" is not allowed here; expected one of "offer"'):
        session.request_from_line(b'{"verb":"reboot"}\n')
