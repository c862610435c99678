"""What a scrape of `/metrics` gets."""

from __future__ import annotations

import gzip
import json
import shutil
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.host.dashboards.prometheus import said, serving
from tests.host.telemetry import fake_board
from tflotilla.host.dashboards import bridges
from tflotilla.host.dashboards.exposition.catalogue import CATALOGUE
from tflotilla.shared.contract import messages
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.errors import ConfigError, UsageError
from tflotilla.shared.contract.manifest import EvaluationSummary
from tflotilla.shared.contract.tensors import QuantizationScheme

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def talkative(folder: Path) -> said.Said:
    """Return a fleet of which every metric has something to show."""
    fleet = said.Said(folder, "pi-1", "pi-2", labels={"room": "kitchen"})
    for board in ("pi-1", "pi-2"):
        fleet.hello(board)
        delegate = messages.DelegateReport(requested="libedgetpu.so", active=None, reason="no such device")
        fleet.say(board, fake_board.state(delegate=delegate))
        fleet.say(
            board,
            messages.ModelCard(
                digest=said.DIGEST,
                name="digits",
                version="1.0.0",
                release=1,
                scheme=QuantizationScheme.INT8,
                size_bytes=1000,
                evaluation=EvaluationSummary(samples=10, accuracy=0.9, runtime="r"),
            ),
        )
        fleet.say(
            board,
            DeploymentStatus(deployment="d", candidate="c", title="digits-1.0.0", state=DeploymentState.SUCCEEDED),
        )
        fleet.say(board, said.window([1_500_000] * 90 + [30_000_000] * 10))
    return fleet


@pytest.fixture
def fleet(tmp_path: Path) -> said.Said:
    return talkative(tmp_path)


@pytest.fixture
def port(fleet: said.Said) -> Iterator[int]:
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        yield bridge.port


def test_every_metric_of_the_catalogue_can_be_scraped(port: int) -> None:
    names = {sample.name for sample in serving.samples(port)}

    assert {name for metric in CATALOGUE for name in metric.samples} <= names


def test_a_deployment_that_ended_before_we_listened_counts_neither_as_one_nor_as_a_gap(tmp_path: Path) -> None:
    fleet = said.Said(tmp_path, "pi-1")
    undone = DeploymentStatus(deployment="d", candidate="c", title="x-1", state=DeploymentState.ROLLED_BACK)
    fleet.say("pi-1", undone, seq=24, retained=True)
    fleet.say("pi-1", said.window(), seq=100)

    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        fleet.say("pi-1", undone, seq=101)
        before = serving.value(bridge.port, "tflotilla_deployments_total", outcome="rolled_back")
        bridge.step(fleet.news())

        assert (None, 1.0, 0.0) == (
            before,
            serving.value(bridge.port, "tflotilla_deployments_total", outcome="rolled_back"),
            serving.value(bridge.port, "tflotilla_board_missing_messages"),
        )


def test_connections_are_counted_because_what_came_between_two_is_missing_to_us_alone(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        for begins in (True, False, True):
            bridge.step(fleet.news(begins=begins))

        assert 2 == serving.value(bridge.port, "tflotilla_bridge_connections_total")


def test_a_histogram_is_cumulative_and_ends_in_infinity(port: int) -> None:
    buckets = [
        (sample.labels["le"], sample.value)
        for sample in serving.samples(port)
        if sample.name == "tflotilla_latency_seconds_bucket"
        and (sample.labels["board"], sample.labels["stage"]) == ("pi-1", "total")
    ]

    assert {"0.0015": 0.0, "0.002": 90.0, "0.02": 90.0, "0.05": 100.0, "+Inf": 100.0}.items() <= dict(buckets).items()
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)


def test_counters_go_on_from_step_to_step(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        fleet.say("pi-1", said.window(errors=3))
        bridge.step(fleet.news())

        assert 110.0 == serving.value(bridge.port, "tflotilla_inferences_total", board="pi-1")
        assert 3.0 == serving.value(bridge.port, "tflotilla_inference_errors_total", board="pi-1")


def test_a_message_that_comes_twice_is_added_up_once(fleet: said.Said) -> None:
    fleet.say("pi-1", said.window(), seq=50)
    fleet.say("pi-1", said.window(), seq=50)

    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())

        assert 110.0 == serving.value(bridge.port, "tflotilla_inferences_total", board="pi-1")
        assert 1.0 == serving.value(bridge.port, "tflotilla_board_duplicate_messages", board="pi-1")


def test_prometheus_gets_openmetrics_when_it_asks_for_it(port: int) -> None:
    body, headers = serving.scraped(port, accept=f"{OPENMETRICS},text/plain;version=0.0.4;q=0.5")

    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_whoever_asks_for_less_gets_less(port: int) -> None:
    packed, headers = serving.scraped(port, encoding="gzip")

    assert "gzip" == headers["Content-Encoding"]
    assert serving.scraped(port)[0] == gzip.decompress(packed)


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_promtool_finds_nothing_to_complain_of(port: int, accept: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: apt install prometheus)")
    body = serving.scraped(port, accept=accept)[0]
    if accept == OPENMETRICS:
        # promtool reads Prometheus's own text alone; what OpenMetrics must hold is asked of its own parser.
        from prometheus_client.openmetrics.parser import text_string_to_metric_families

        families = list(text_string_to_metric_families(body.decode()))  # type: ignore[no-untyped-call]
        assert len(CATALOGUE) == len(families)
        return

    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, check=False, timeout=60)

    assert (0, "", "") == (done.returncode, done.stdout.decode(), done.stderr.decode())


def test_boards_that_nobody_enrolled_are_not_shown_unless_asked_for(fleet: said.Said) -> None:
    fleet.say("stranger", said.window())
    news = fleet.news()
    shown = []
    for unknown in (False, True):
        with serving.bridge(fleet, unknown=unknown) as bridge:
            bridge.step(news)
            shown.append(serving.value(bridge.port, "tflotilla_inferences_total", board="stranger"))

    assert [None, 10.0] == shown


def test_a_board_that_was_taken_out_is_gone(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        fleet.fleet = fleet.fleet.remove("pi-1")
        fleet.live.forget("pi-1")

        bridge.step(fleet.news())

        assert set() == {each.name for each in serving.samples(bridge.port) if each.labels.get("board") == "pi-1"}


def test_words_that_boards_say_are_written_and_not_obeyed(fleet: said.Said) -> None:
    nasty = 'x"} 1\n# TYPE evil counter\\\n\x1b[2J' + "long" * 100
    label = messages.LabelCount(label=nasty, count=4, mean_score=0.5)
    fleet.say("pi-1", said.window(labels=(label,)))
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())

        named = {
            s.labels["label"] for s in serving.samples(bridge.port) if s.name == "tflotilla_predicted_labels_total"
        }

    assert {"seven", 'x"} 1?# TYPE evil counter\\??[2Jlonglonglonglonglonglonglonglong…'} == named


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 200), ("GET", "/else", 404), ("POST", "/metrics", 405)]
)
def test_only_metrics_can_be_read(port: int, method: str, path: str, status: int) -> None:
    assert status == httpx.request(method, f"http://127.0.0.1:{port}{path}").status_code


def test_words_that_are_no_text_spoil_nothing(fleet: said.Said) -> None:
    """JSON can spell half a character, which no UTF-8 can hold."""
    payload = json.loads(fleet.payload("pi-1", said.window(), seq=99))
    payload["labels"][0]["label"] = "\ud800"
    from tflotilla.host.telemetry.inbox import Received

    received = Received(topic="tflotilla/barn/pi-1/metrics", payload=json.dumps(payload).encode(), at=1000.0)
    news = fleet.news(messages=fleet.live.hear([received]))
    with serving.bridge(fleet) as bridge:
        bridge.step(news)

        assert 200 == serving.scraped(bridge.port)[1].get("Status", 200)


def test_there_is_nothing_before_the_first_step(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        assert b"" == serving.scraped(bridge.port)[0]


def test_without_a_broker_counters_stay_and_the_present_goes(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        bridge.step(fleet.news(connected=False))

        assert 0.0 == serving.value(bridge.port, "tflotilla_bridge_connected")
        assert None is serving.value(bridge.port, "tflotilla_board_online", board="pi-1")
        assert 100.0 == serving.value(bridge.port, "tflotilla_inferences_total", board="pi-1")


def test_a_scrape_that_hangs_costs_others_nothing(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as hanging:
        hanging.sendall(b"GET /metrics HTTP/1.1\r\n")

        assert serving.scraped(port)[0]


def test_scrapes_and_steps_at_once_give_whole_answers(fleet: said.Said) -> None:
    with serving.bridge(fleet) as bridge:
        bridge.step(fleet.news())
        ends: list[bool] = []

        def scrape() -> None:
            ends.extend(serving.scraped(bridge.port, accept=OPENMETRICS)[0].endswith(b"# EOF\n") for _ in range(10))

        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(50):
            fleet.say("pi-1", said.window())
            bridge.step(fleet.news())
        for thread in threads:
            thread.join()

    assert [True] * 30 == ends


def test_an_address_that_is_taken_is_one_line(fleet: said.Said, port: int) -> None:
    with pytest.raises(ConfigError, match=rf"--listen 127.0.0.1:{port}: .*in use; name another address or port"):
        bridges.module("prometheus").open_bridge(
            bridges.Setting(fleet=fleet.fleet, live=fleet.live, options={"listen": f"127.0.0.1:{port}"})
        )


@pytest.mark.parametrize(
    ("options", "said_of_it"),
    [
        ({"listen": "here"}, "--listen here: give HOST:PORT, as 127.0.0.1:9469"),
        ({"listen": "127.0.0.1:70000"}, "--listen 127.0.0.1:70000: give HOST:PORT, as 127.0.0.1:9469"),
        ({"stages": "invoke,lunch"}, "--stages lunch: no such stage; there are decode, preprocess, invoke, "),
        ({"top-labels": "all"}, "--top-labels all: give a number from 0 to 1000"),
    ],
)
def test_options_that_make_no_sense_are_one_line(fleet: said.Said, options: dict[str, str], said_of_it: str) -> None:
    setting = bridges.Setting(fleet=fleet.fleet, live=fleet.live, options={"listen": "127.0.0.1:0", **options})

    with pytest.raises(UsageError) as refused:
        bridges.module("prometheus").open_bridge(setting)

    assert str(refused.value).startswith(said_of_it)
