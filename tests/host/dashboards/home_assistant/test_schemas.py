"""What Home Assistant is told, judged by its own schemas and rendered by its own templates."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.dashboards.bridges.fake_broker import received
from tests.host.dashboards.home_assistant import environment
from tests.host.telemetry.fake_board import latency, metrics, state
from tflotilla.host.dashboards.home_assistant import discovery, updates
from tflotilla.host.dashboards.home_assistant.discovery import Shown
from tflotilla.host.dashboards.home_assistant.updates import Standing, Wanted
from tflotilla.shared.contract import messages, topics
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.dashboards
ROOT = Path(__file__).resolve().parents[4]
FULL = Shown(
    fleet="barn", board="pi-1", hardware="Pi 4", agent_version="0.1.0", window_s=10.0, area="Kitchen", pictures=True
)
BARE = Shown(fleet="a-b", board="0")
BUSY = dataclasses.replace(
    metrics(),
    window_s=2.0,
    count=30,
    stages={"total": latency(1_234_567)},
    labels=(
        messages.LabelCount(label="one", count=10, mean_score=0.6),
        messages.LabelCount(label="{{ 'seven' }}", count=20, mean_score=0.9),
    ),
    temperature_c=51.25,
    throttled=False,
)
#: A window in which nothing was seen, on a machine that can't tell its temperature.
IDLE = dataclasses.replace(metrics(), window_s=0.0, count=0, stages={}, labels=())


@pytest.fixture(scope="module")
def home_assistant(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401 - a function of keywords
    """Give a judge: what it is asked as keywords, what it finds as a dictionary."""
    python = environment.python()

    @cache
    def ask(asked: str) -> str:
        folder = tmp_path_factory.mktemp("judge")
        judge = Path(__file__).with_name("judge.py")
        done = subprocess.run(
            [python, judge, folder], input=asked, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return lambda **asked: json.loads(ask(json.dumps(asked, sort_keys=True)))


def template(entity: str, key: str = "value_template") -> str:
    return str(discovery.config(FULL)["components"][entity][key])


def payload(body: object, channel: topics.Channel = "metrics") -> str:
    return received("pi-1", channel, body).payload.decode()


def rendered(home_assistant: Any, renderings: Sequence[tuple[str, str | None]]) -> list[str]:  # noqa: ANN401
    found: list[str] = home_assistant(renderings=renderings)["rendered"]
    return found


@pytest.mark.parametrize("shown", [FULL, BARE])
def test_a_device_breaks_no_schema_of_home_assistant(home_assistant: Any, shown: Shown) -> None:  # noqa: ANN401
    assert home_assistant(devices=[discovery.config(shown)])["faults"] == []


def test_the_judge_would_notice(home_assistant: Any) -> None:  # noqa: ANN401
    document = discovery.config(FULL)
    document["components"]["p50"]["unit_of_measurement"] = "parsecs"
    document["components"]["p99"]["values_template"] = "{{ 1 }}"
    del document["components"]["rate"]["state_topic"]

    assert len(home_assistant(devices=[document])["faults"]) == 3
    assert len(home_assistant(devices=[discovery.config(FULL) | {"colour": "blue"}])["faults"]) == 1


def test_what_an_update_shows_breaks_no_schema(home_assistant: Any) -> None:  # noqa: ANN401
    status = DeploymentStatus(
        deployment="d", candidate="bb", title="digits-2.0.0", state=DeploymentState.PROBING, detail="x" * 1000
    )
    serving = messages.ServedBundle(digest="aa", name="digits", version="1.0.0", release=1)
    wanted = Wanted(digest="bb", title="digits-2.0.0", rollout="r", release=2)
    states = [
        updates.document(Standing(heard=True)),
        updates.document(Standing(heard=True, serving=serving, wanted=wanted)),
        updates.document(Standing(heard=True, serving=serving, deployment=status)),
    ]

    assert home_assistant(states=states)["faults"] == []


@pytest.mark.parametrize(
    ("entity", "busy", "idle"),
    [
        ("p50", "1.2346", "None"),
        ("p99", "3.7037", "None"),
        ("rate", "15.0", "None"),
        ("temperature", "51.25", "None"),
        ("throttled", "OFF", "None"),
        ("top_label", "{{ 'seven' }}", "None"),
        ("confidence", "80.0", "None"),
    ],
)
def test_figures_are_those_of_the_board_and_unknown_where_it_has_none(
    home_assistant: Any,  # noqa: ANN401
    entity: str,
    busy: str,
    idle: str,
) -> None:
    """`None` is what Home Assistant takes for unknown."""
    text = template(entity)

    assert rendered(home_assistant, [(text, payload(BUSY)), (text, payload(IDLE))]) == [busy, idle]


def test_a_throttled_board_is_a_problem(home_assistant: Any) -> None:  # noqa: ANN401
    hot = payload(dataclasses.replace(BUSY, throttled=True))

    assert rendered(home_assistant, [(template("throttled"), hot)]) == ["ON"]


def test_windows_of_older_agents_are_understood(home_assistant: Any) -> None:  # noqa: ANN401
    """They don't know what was added to the contract since."""
    document = json.loads(payload(BUSY))
    for name in ("throttled", "temperature_c", "low_confidence", "sample", "scores", "unreadable"):
        del document[name]
    older = json.dumps(document)
    texts = [(template(entity), older) for entity in ("p50", "temperature", "throttled", "confidence")]

    assert rendered(home_assistant, texts) == ["1.2346", "None", "None", "80.0"]


def test_a_long_label_is_cut_where_home_assistant_would_drop_it(home_assistant: Any) -> None:  # noqa: ANN401
    long = dataclasses.replace(BUSY, labels=(messages.LabelCount(label="x" * 1000, count=1, mean_score=1.0),))

    assert rendered(home_assistant, [(template("top_label"), payload(long))]) == ["x" * 255]


def test_versions_come_from_the_boards_state(home_assistant: Any) -> None:  # noqa: ANN401
    serving, idle = payload(state(), "state"), payload(state(serving=None), "state")
    model, agent = template("model_version"), template("agent_version")

    assert rendered(home_assistant, [(model, serving), (model, idle), (agent, serving)]) == [
        "digits-1.0.0",
        "none",
        "0.1.0",
    ]


def test_availability_is_the_boards_word(home_assistant: Any) -> None:  # noqa: ANN401
    text = str(discovery.config(FULL)["availability_template"])
    said = [(text, payload(messages.Availability(status=word), "availability")) for word in ("online", "offline")]  # type: ignore[arg-type]

    assert rendered(home_assistant, said) == ["online", "offline"]


def test_pressing_the_button_makes_a_request_of_the_contract(home_assistant: Any) -> None:  # noqa: ANN401
    (text,) = rendered(home_assistant, [(template("benchmark", "command_template"), None)])
    address, message = messages.parse(topics.command("barn", "pi-1", "benchmark"), text.encode())

    assert (address.board, message.board, message.seq) == ("pi-1", "pi-1", 0)
    assert message.body.request.startswith("home-assistant-")
    assert message.body.configurations == ()


def test_the_example_automations_are_automations(home_assistant: Any) -> None:  # noqa: ANN401
    text = (ROOT / "deploy/home-assistant/automations.yaml").read_text()

    assert home_assistant(automations=[text])["faults"] == []
