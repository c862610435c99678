"""Two collectors of one group on one PostgreSQL: each report is stored once, whoever gets it, and whoever is killed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests import brokers, postgres
from tests.host.telemetry.conftest import FLEET, PASSWORD
from tests.host.telemetry.keen_board import KeenBoard
from tests.host.telemetry.test_collector_faults import Running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.shared.contract.agent_config import MqttConfig

pytestmark = pytest.mark.mosquitto
_NUMBERS = (
    "SELECT count(*), count(DISTINCT (m.boot, m.seq)), min(m.seq), max(m.seq) FROM telemetry_metrics m"
    " JOIN telemetry_boots o ON m.boot = o.id"
)


@pytest.fixture
def server() -> Iterator[postgres.Postgres]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with postgres.server() as running:
        yield running


def test_every_report_is_stored_once_though_one_of_two_is_killed(
    fleet_file: Path, tmp_path: Path, config: MqttConfig, server: postgres.Postgres
) -> None:
    both = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        running = Running(
            fleet_file=fleet_file,
            folder=tmp_path / name,
            store=server.url(),
            more=("--share", "night", "--name", name),
        )
        running.start()
        both.append(running)
    try:
        with KeenBoard(config=config, password=PASSWORD, fleet=FLEET, board="pi-1", last=400) as talking:
            brokers.until(lambda: len(talking.acked) > 50, "some acks")
            both[0].signal(signal.SIGKILL)
            brokers.until(lambda: len(talking.acked) > 200, "more acks")
            both[0].start()
            brokers.until(lambda: talking.done, "everything to be acked")
        last = [running.stop() for running in both]
    finally:
        for running in both:
            running.end()

    assert "400|400|1|400" == server.execute(_NUMBERS)
    assert all(each["stored"] > 0 for each in last)
