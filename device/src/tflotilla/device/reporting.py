"""Numbers what the board reports and puts it into envelopes.

(board, boot, seq) names a report for ever; seq counts from 1 within a boot, over every channel that is queued. The
worker's bodies are finished JSON objects and stay so: an envelope is put around them without decoding.
What it does NOT do: queue or send.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import TYPE_CHECKING, Any

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.messages import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

#: The number of what describes the present and is not queued.
UNNUMBERED = 0


def new_boot(clock: Callable[[], float] = time.time) -> str:
    """Return a name for one run of the agent: unique though boards without a clock start at the same second."""
    return f"{int(clock()):08x}-{secrets.token_hex(4)}"


class Envelopes:
    """Writes the envelopes of one boot."""

    def __init__(self, *, board: str, boot: str, clock: Callable[[], float] = time.time) -> None:
        self.board = board
        self.boot = boot
        self._clock = clock
        self._seq = 0
        self._names = f'"board":{json.dumps(board)},"boot":{json.dumps(boot)}'.encode()

    def next_seq(self) -> int:
        """Return the next number; each is used once, whatever becomes of the report."""
        self._seq += 1
        return self._seq

    def around(self, body: bytes, *, seq: int, bundle: str | None) -> bytes:
        """Return a message: the body's keys beside the envelope's. `body` is one JSON object, as canonical_json gives.

        Raises:
            ValueError: it isn't one.

        """
        if not (body.startswith(b"{") and body.endswith(b"}")):
            message = f"a body that is no JSON object: {body[:40]!r}"
            raise ValueError(message)
        served = b"null" if bundle is None else json.dumps(bundle).encode()
        rest = body[1:] if body == b"{}" else b"," + body[1:]
        return b'{"schema":%d,%b,"seq":%d,"time":%b,"bundle":%b%b' % (
            SCHEMA,
            self._names,
            seq,
            repr(round(self._clock(), 6)).encode(),
            served,
            rest,
        )

    def unnumbered(self, body: Any, *, bundle: str | None) -> bytes:  # noqa: ANN401 - any body of the contract
        """Return a message that describes the present."""
        return self.around(codec.canonical_json(body), seq=UNNUMBERED, bundle=bundle)
