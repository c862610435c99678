"""Whatever boards say, the page goes on, and what it sends is JSON that browsers read."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import pytest

from tests.host.dashboards.web import simulated
from tflotilla.host.dashboards.web.fleet_now import FleetNow
from tflotilla.host.dashboards.web.site import encode
from tflotilla.host.telemetry.inbox import Received

NOW = 1.8e9
FLEET = "home"
_ODD: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63 - 1, -(2**63), 2**64, 10**400, 0.5, -0.0, 1e308, -1e308, 1e-320, math.nan, math.inf),
    *("", "x" * 5000, "\x00\x1b[2J", "</script><script>", "\u202e\ufeff", "\ud800"),
    *(None, True, False, [], {}, [[]], {"": ""}),
)
_ROUNDS = 400


def spoiled(payload: bytes, dice: random.Random) -> bytes:
    """Return a message in which some values were replaced by odd ones, or that was cut."""
    document = json.loads(payload)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = dice.choice(keys)
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or dice.random() < 0.1:
                place[key] = copy.deepcopy(dice.choice(_ODD))
                break
            place = inner
    written = json.dumps(document).encode()
    return written[: dice.randrange(len(written))] if dice.random() < 0.02 else written


@pytest.mark.parametrize("seed", range(4))
def test_odd_messages_break_nothing(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - a simulation
    boards = [simulated.Board(name, number, fleet=FLEET, seed=seed) for number, name in enumerate(simulated.names(6))]
    clock = [NOW]
    now = FleetNow(FLEET, {board.name: {} for board in boards}, clock=lambda: clock[0])
    now.connection(connected=True)
    for board in boards:
        now.watch(board.name)
    for _ in range(_ROUNDS):
        clock[0] += 1
        board = dice.choice(boards)
        said = [*board.births(clock[0]), *board.window(clock[0]), board.picture(clock[0])]
        now.hear(
            Received(topic=each.topic, payload=spoiled(each.payload, dice), at=clock[0], retained=each.retained)
            for each in said
        )
        now.changes()
        now.news(board.name)
    documents = [now.fleet_document(), now.models_document(), *(now.board_document(board.name) for board in boards)]

    assert now.garbage > 0
    for document in documents:
        assert json.loads(encode(document), parse_constant=pytest.fail) is not None
