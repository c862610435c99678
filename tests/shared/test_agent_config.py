"""The agent's configuration refuses what can't be, with the allowed range."""

from __future__ import annotations

from typing import Any

import pytest

from tflotilla.shared.contract import codec
from tflotilla.shared.contract.agent_config import AgentConfig
from tflotilla.shared.contract.errors import ContractError


def test_a_board_and_a_fleet_are_enough() -> None:
    config = codec.decode(AgentConfig, {"board": "pi-1", "fleet": "lab"}, "agent.toml", strict=True)

    assert config == AgentConfig(board="pi-1", fleet="lab")
    assert (config.inference.runtime, config.reporting.confirm) == ("auto", "broker")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"board": "Pi"}, "agent.toml: board name 'Pi': use lower-case letters"),
        ({"fleet": "my fleet"}, "agent.toml: fleet name 'my fleet': use lower-case letters"),
        ({"mqtt": {"port": 0}}, "agent.toml: mqtt: port must be 1..65535, not 0"),
        ({"mqtt": {"port": "1883"}}, 'agent.toml: mqtt.port: "1883" is not allowed here; expected a whole number'),
        ({"mqtt": {"keepalive_s": 0}}, "agent.toml: mqtt: keepalive_s must be at least 1, not 0"),
        (
            {"mqtt": {"passwordfile": "x"}},
            "agent.toml: mqtt: unknown key 'passwordfile'; did you mean 'password_file'?",
        ),
        ({"inference": {"num_threads": 65}}, "agent.toml: inference: num_threads must be 1..64, not 65"),
        ({"inference": {"runtime": "tf"}}, 'expected one of "auto", "tflite-runtime", "ai-edge-litert"'),
        ({"inference": {"delegate": {"options": {}}}}, "agent.toml: inference.delegate: key 'library' is missing"),
        ({"source": {"interval_ms": -1}}, "agent.toml: source: interval_ms must not be negative, it is -1.0"),
        ({"source": {"kind": "../x"}}, "agent.toml: source: kind '../x' is not the name of a source"),
        ({"reporting": {"window_s": 0.01}}, "agent.toml: reporting: window_s must be 0.05..3600, not 0.01"),
        ({"reporting": {"outbox_max_mib": 0}}, "agent.toml: reporting: outbox_max_mib must be at least 1, not 0.0"),
        ({"sauce": {}}, "agent.toml: unknown key 'sauce'; did you mean 'source'?"),
    ],
)
def test_an_error_names_key_and_allowed_values(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractError) as caught:
        codec.decode(AgentConfig, {"board": "pi-1", "fleet": "lab"} | document, "agent.toml", strict=True)

    assert said in str(caught.value)
