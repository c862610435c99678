"""docs/contract.md against the code: every example is read by it, every field, topic, path and error is explained."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from tflotilla.shared.contract import benchmark, codec, errors, layout, messages, session, topics
from tflotilla.shared.contract.agent_config import AgentConfig
from tflotilla.shared.contract.deployment import DeploymentState
from tflotilla.shared.contract.manifest import Manifest
from tflotilla.shared.contract.tensors import QuantizationScheme

DOCUMENT = (Path(__file__).resolve().parents[2] / "docs" / "contract.md").read_text()
EXAMPLES = re.findall(r"<!-- example: (\S+) -->\n```(?:json|toml)\n(.*?)```", DOCUMENT, re.DOTALL)


def example_ids() -> list[str]:
    return [f"{name}-{number}" for number, (name, _) in enumerate(EXAMPLES)]


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=example_ids())
def test_every_example_is_read_by_the_code(name: str, text: str) -> None:
    if name == "agent.toml":
        if sys.version_info < (3, 11):
            pytest.skip("tomllib is newer than this Python")
        import tomllib

        assert codec.decode(AgentConfig, tomllib.loads(text), "agent.toml", strict=True).board == "pi-1"
        return
    document = json.loads(text)
    kinds: dict[str, type[Any]] = {
        "manifest": Manifest,
        "hello": session.Hello,
        "request": session.Request,
        "reply": session.Reply,
        "command/benchmark": benchmark.BenchmarkRequest,
        "command/state": messages.StateRequest,
    }
    if name in kinds:
        codec.decode(kinds[name], document, name, strict=True)
        return
    address, message = messages.parse(f"tflotilla/farm/pi-1/{name}", text.encode())
    assert address.channel == name
    envelope = {field.name for field in dataclasses.fields(messages.Message)} - {"body"} | {"schema"}
    fields = {field.name for field in dataclasses.fields(message.body)}
    assert set(document) <= envelope | fields


def test_every_channel_and_command_has_an_example() -> None:
    wanted = {*topics.CHANNELS, *(f"command/{name}" for name in topics.COMMANDS), "manifest", "agent.toml"}

    assert wanted <= {name for name, _ in EXAMPLES}


def dataclasses_below(kind: Any, found: set[type[Any]]) -> None:  # noqa: ANN401 - any annotation
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and kind not in found:
        found.add(kind)
        for hint in codec.hints(kind).values():
            dataclasses_below(hint, found)
    for argument in typing.get_args(kind):
        dataclasses_below(argument, found)


def all_fields() -> list[str]:
    found: set[type[Any]] = set()
    for kind in (Manifest, AgentConfig, session.Hello, session.Request, session.Reply, *messages.BODIES.values()):
        dataclasses_below(kind, found)
    return sorted({f"{kind.__name__}.{field.name}" for kind in found for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("field", all_fields())
def test_every_field_is_explained(field: str) -> None:
    name = field.partition(".")[2]

    assert re.search(rf"`(?:[a-z]+\.)?{name}`", DOCUMENT), f"docs/contract.md says nothing about {field}"


@pytest.mark.parametrize(
    "word",
    [
        *(state.value for state in DeploymentState),
        *(scheme.value for scheme in QuantizationScheme),
        *typing.get_args(messages.Stage),
        layout.STORE,
        layout.INCOMING,
        layout.BUNDLES,
        layout.CURRENT,
        layout.PREVIOUS,
        layout.ENVIRONMENTS,
        layout.ENVIRONMENT,
        layout.JOURNAL,
        layout.OUTBOX,
        layout.BENCHMARK,
        layout.SAMPLES,
        *typing.get_args(benchmark.Failure),
        *typing.get_args(benchmark.Scenario),
        *typing.get_args(benchmark.BenchmarkStage),
        layout.CONFIG,
        layout.ALLOWED_SIGNERS,
        layout.MQTT_PASSWORD,
        layout.SOCKET,
        layout.PID,
        layout.GUARD_PID,
        layout.LOG,
        layout.LAUNCHER,
        layout.SYSTEM_HOME,
        layout.USER_HOME,
    ],
)
def test_every_word_and_path_stands_in_it(word: str) -> None:
    assert word in DOCUMENT


def test_every_error_stands_in_it_with_its_exit_code() -> None:
    rows = re.findall(r"^\| (`\w+Error`(?:, `\w+Error`)*) \| (\d+) \|", DOCUMENT, re.MULTILINE)
    told = {name.strip("` "): int(code) for names, code in rows for name in names.split(",")}

    def tree(root: type[errors.TflotillaError]) -> dict[str, int]:
        found = {root.__name__: root.exit_code}
        for child in root.__subclasses__():
            found.update(tree(child) if child.__module__ == errors.__name__ else {})
        return found

    assert told == tree(errors.TflotillaError)
