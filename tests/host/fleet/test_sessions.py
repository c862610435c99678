"""Sessions with agents that misbehave: stand-ins for the launcher behind a real sshd."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tflotilla.host.fleet import push
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.errors import BoardError, ConfigError, ContractError, TflotillaError, UnreachableError

if TYPE_CHECKING:
    from tests.sshd import Sshd
    from tflotilla.host.fleet.inventory.fleet import Fleet

pytestmark = pytest.mark.sshd


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        (
            """echo '{"done":true,"error":"ConfigError","message":"agent.toml: mqtt.port: no"}'""",
            ConfigError,
            "pi-1: agent.toml: mqtt.port: no",
        ),
        ("""echo '{"schema":2}'""", ContractError, "`tflotilla board bootstrap pi-1` updates it"),
        ("""echo '{"schema":1}'""", ContractError, "is missing"),
        ("echo '{nonsense'", ContractError, "not valid JSON"),
        ("echo Traceback >&2; echo 'No module named numpy' >&2; exit 1", BoardError, "No module named numpy"),
        ("kill -9 $$", UnreachableError, "session was killed on the board"),
        ("exit 0", BoardError, "ended with status 0: it said nothing"),
        ("while :; do echo noise; done", BoardError, "clean its start-up files"),
        ("head -c 6000000 /dev/zero", BoardError, "a line of more than"),
    ],
)
def test_an_agent_that_misbehaves_is_one_line_with_the_boards_name(
    board: Sshd, fleet: Fleet, script: str, kind: type[TflotillaError], said: str
) -> None:
    program = board.home / layout.USER_HOME / layout.LAUNCHER
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)

    with pytest.raises(kind) as refused:
        push.status("pi-1", fleet)

    assert said in str(refused.value)
    assert "pi-1" in str(refused.value)
    assert "\n" not in str(refused.value)
