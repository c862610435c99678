"""`tflotilla bridge prometheus`, as it is typed, on a real broker."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import brokers
from tests.host.dashboards.prometheus import said, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.host.telemetry.fake_board import FakeBoard

pytestmark = [pytest.mark.mosquitto]


def shown(port: int, name: str, **labels: str) -> float | None:
    """Return a sample once somebody serves."""
    try:
        return serving.value(port, name, **labels)
    except OSError:
        return None


def test_what_boards_say_is_scraped_until_the_end(
    fleet_file: Path,
    board: Callable[..., FakeBoard],
    mosquitto: brokers.Mosquitto,
) -> None:
    port = brokers.free_port()
    command = [sys.executable, "-m", "tflotilla.host", "bridge", "prometheus", "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--fleet", str(fleet_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        with board("pi-1") as pi:
            brokers.until(lambda: shown(port, "tflotilla_board_online", board="pi-1") == 1, "the board to be online")
            pi.say("metrics", said.window())
            brokers.until(lambda: shown(port, "tflotilla_inferences_total", board="pi-1") == 10, "its window")
            pi.die()
        brokers.until(lambda: shown(port, "tflotilla_board_online", board="pi-1") == 0, "its last will")

        mosquitto.stop()
        brokers.until(lambda: shown(port, "tflotilla_bridge_connected") == 0, "the broker to be missed")
        assert None is shown(port, "tflotilla_board_online", board="pi-1")

        mosquitto.start()
        brokers.until(lambda: shown(port, "tflotilla_bridge_connected") == 1, "the broker to be found again")
        assert 10 == shown(port, "tflotilla_inferences_total", board="pi-1")
        process.send_signal(signal.SIGTERM)
        said_of_it, complained = process.communicate(timeout=brokers.PATIENCE_S)
    finally:
        process.kill()

    assert f"serving http://127.0.0.1:{port}/metrics" in said_of_it.decode()
    assert (0, b"") == (process.returncode, b"" if b"stopped" in complained else complained)


def test_an_address_that_is_taken_is_one_line_and_exit_code_3(fleet_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "tflotilla.host", "bridge", "prometheus", "--listen", where]
        done = subprocess.run(
            [*command, "--fleet", str(fleet_file)], capture_output=True, text=True, check=False, timeout=120
        )

    assert (3, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert done.stderr.startswith(f"tflotilla: --listen {where}: Address already in use")
