"""The page with 1,000 boards that report every second, through a real mosquitto, in a real Chromium.

    python -m tests.benchmarks dashboard

The boards are those of the collector's benchmark: one cheap process. The server is the command itself. Where no
Chromium is installed, the server alone is measured.
How old: from a report's arrival at the server to the moment at which the browser has it as an object.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests import brokers
from tests.benchmarks import busy, collector
from tests.benchmarks.busy import Others
from tests.end_to_end import browser
from tests.host.dashboards.web import simulated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.browser import Browser

BOARDS = 1000
SECONDS = 60.0
LIMIT_MIB = 150.0
LIMIT_PAINT_S = 1.0
LIMIT_AGE_S = 1.0
LEAST_IDLE = 0.5
_WARM_S = 15.0
#: How many times the page is loaded; the median counts.
_LOADS = 5
MIB = 1 << 20
_SETTINGS = "max_queued_messages 100000\nmax_inflight_messages 1000"
_WIDTH, _HEIGHT = 1600, 1000

#: Listens beside the page, as the page does.
_LISTEN = """
window.ages = [];
window.ear = new EventSource('api/stream');
window.ear.addEventListener('tiles', event => {
  const now = Date.now() / 1000;
  for (const tile of JSON.parse(event.data).tiles) if (tile.seen !== null) window.ages.push(now - tile.seen);
}); 0
"""
_AGES = """
(() => { const ages = window.ages.splice(0).sort((a, b) => a - b); window.ear.close();
  return {count: ages.length, p50: ages[Math.floor(ages.length * 0.5)], p99: ages[Math.floor(ages.length * 0.99)],
          max: ages[ages.length - 1]}; })()
"""
_SHOWN = (
    "performance.getEntriesByName('fleet-shown').length && performance.getEntriesByName('fleet-shown')[0].startTime"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One run; what needs a browser is None where there is none."""

    boards: int
    seconds: float
    #: The server's memory at its most, and what it took of one core, with a browser looking.
    rss_mib: float
    cpu_share: float
    paint_s: float | None = None
    age_p50_s: float | None = None
    age_p99_s: float | None = None
    #: Share of the browser's main thread that had nothing to do.
    idle: float | None = None
    #: Who else used the machine.
    others: Others

    @property
    def kept(self) -> bool | None:
        """Whether every promise holds that could be measured; None where a busy machine broke it, perhaps."""
        in_time = (
            (self.paint_s is None or self.paint_s < LIMIT_PAINT_S)
            and (self.age_p99_s is None or self.age_p99_s <= LIMIT_AGE_S)
            and (self.idle is None or self.idle > LEAST_IDLE)
        )
        if self.rss_mib < LIMIT_MIB and not in_time and self.others.too_busy:
            return None
        return self.rss_mib < LIMIT_MIB and in_time


def measure(folder: Path, *, boards: int = BOARDS, seconds: float = SECONDS) -> Shown:
    """Run broker, boards, server and browser."""
    folder.mkdir(parents=True, exist_ok=True)
    watch = busy.Watch()
    with brokers.mosquitto(folder / "broker", extra=_SETTINGS) as broker:
        _births(broker.port, boards)
        with _served(folder, broker.port, boards) as (process, address), _talking(broker.port, folder, boards, seconds):
            time.sleep(min(_WARM_S, seconds / 4))
            left = seconds - min(_WARM_S, seconds / 4)
            cpu, began = _cpu_s(process.pid), time.monotonic()
            seen = _look(folder / "browser", address, left - 5.0)
            spent = _cpu_s(process.pid) - cpu
            return Shown(
                boards=boards,
                seconds=seconds,
                rss_mib=_peak_mib(process.pid),
                cpu_share=spent / (time.monotonic() - began),
                others=watch.others(),
                **seen,
            )


def _births(port: int, boards: int) -> None:
    """Leave at the broker what boards say when they come."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="births")
    client.max_queued_messages_set(0)
    client.max_inflight_messages_set(1000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    now = time.time()
    sent = [
        client.publish(each.topic, each.payload, qos=1, retain=True)
        for number in range(boards)
        for each in itertools.islice(simulated.Board(f"pi-{number}", number * 30, fleet=collector.FLEET).births(now), 3)
    ]
    for each in sent:
        each.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


@contextlib.contextmanager
def _served(folder: Path, port: int, boards: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    file = folder / "fleet.toml"
    listed = "".join(
        f'[boards.pi-{number}]\nhost = "127.0.0.1"\nlabels = {{ site = "s{number % 7}" }}\n' for number in range(boards)
    )
    file.write_text(f'name = "{collector.FLEET}"\n[mqtt]\nport = {port}\n{listed}')
    command = [sys.executable, "-m", "tflotilla.host", "dashboard", "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen([*command, "--fleet", str(file)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextlib.contextmanager
def _talking(port: int, folder: Path, boards: int, seconds: float) -> Iterator[None]:
    role = [
        sys.executable,
        "-m",
        "tests.benchmarks.collector",
        "generate",
        "--port",
        str(port),
        "--folder",
        str(folder),
    ]
    with subprocess.Popen(
        [*role, "--boards", str(boards), "--seconds", str(seconds)], stdout=subprocess.DEVNULL
    ) as generator:
        try:
            yield
        finally:
            generator.terminate()


def _look(folder: Path, address: str, seconds: float) -> dict[str, Any]:
    """Look at the fleet for so long; nothing where there is no browser."""
    try:
        with browser.opened(folder) as chromium:
            return _seen(chromium, address, seconds)
    except pytest.skip.Exception:
        time.sleep(seconds)
        return {}


def _seen(chromium: Browser, address: str, seconds: float) -> dict[str, Any]:
    began = time.monotonic()
    paints = []
    for _ in range(_LOADS):
        chromium.show(address, width=_WIDTH, height=_HEIGHT, mobile=False, scheme="light")
        paints.append(chromium.until(_SHOWN) / 1000)
    chromium.ask(_LISTEN)
    before = chromium.performance()
    time.sleep(max(5.0, seconds - (time.monotonic() - began)))
    after = chromium.performance()
    ages = chromium.ask(_AGES)
    busy = (after["TaskDuration"] - before["TaskDuration"]) / (after["Timestamp"] - before["Timestamp"])
    return {
        "paint_s": sorted(paints)[_LOADS // 2],
        "age_p50_s": ages["p50"],
        "age_p99_s": ages["p99"],
        "idle": 1 - busy,
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _peak_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024
