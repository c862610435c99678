"""Agents' homes for tests of the whole agent, and the real agent as a process in them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests import brokers
from tests.device import running_bundles
from tflotilla.device import control
from tflotilla.device.home import Home
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.shared.contract.manifest import HealthPolicy
    from tflotilla.shared.contract.messages import State

BOARD, FLEET = "pi-1", "tests"
#: Fifty inferences a second, five windows a second: seconds of a test hold enough of both.
CONFIG = """\
board = "{board}"
fleet = "{fleet}"
[mqtt]
port = {port}
{mqtt}
[inference]
runtime = "{runtime}"
[source]
interval_ms = 20
[reporting]
window_s = 0.2
{reporting}
"""


def config(
    port: int,
    *,
    mqtt: str = "",
    reporting: str = "",
    runtime: str | None = None,
    board: str = BOARD,
) -> str:
    """Return the text of an agent.toml; `mqtt` and `reporting` are more lines of these tables."""
    from tests.device.children import RUNTIMES

    return CONFIG.format(
        board=board, fleet=FLEET, port=port, mqtt=mqtt, reporting=reporting, runtime=runtime or RUNTIMES[0]
    )


def make(folder: Path, toml: str) -> Home:
    """Make a home with a configuration and nothing to serve."""
    home = Home(folder)
    home.make()
    home.config.write_text(toml)
    return home


def install(
    home: Home,
    *,
    model: bytes | None = None,
    version: str = "1.0.0",
    health: HealthPolicy | None = None,
    serving: bool = True,
) -> str:
    """Put a bundle of the tiny classifier into the home as a deployment leaves it; return its digest."""
    made = running_bundles.write(home.path / "made", model=model, changes={"version": version}, health=health)
    (made / SIGNATURE).write_bytes(b"nobody looks at it any more once a bundle is admitted")
    bundle = digest.of_bytes((made / MANIFEST).read_bytes())
    folder = home.bundle(bundle)
    made.rename(folder)
    if serving:
        home.current.unlink(missing_ok=True)
        home.current.symlink_to(folder.relative_to(home.path))
    return bundle


def manifest(home: Home, bundle: str) -> Manifest:
    """Read the manifest of an installed bundle."""
    return Manifest.from_bytes((home.bundle(bundle) / MANIFEST).read_bytes())


@dataclass(kw_only=True)
class Running:
    """A real agent process."""

    home: Home
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """What it and its workers wrote."""
        return self.home.log.read_text()

    def state(self) -> State:
        """Ask over the control socket."""
        (reply,) = control.ask(self.home, control.ControlRequest(verb="state"))
        assert reply.state is not None, reply.message
        return reply.state

    def serves(self) -> bool:
        """Whether its worker has done its first inference."""
        return control.is_running(self.home) and self.state().worker == "running"

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.process.kill()
        self.process.wait(brokers.PATIENCE_S)

    def terminate(self) -> int:
        """SIGTERM; return the exit code."""
        self.process.terminate()
        return self.process.wait(brokers.PATIENCE_S)

    def reload(self) -> None:
        """SIGHUP."""
        self.process.send_signal(signal.SIGHUP)


def worker_pids(agent: Running) -> list[int]:
    """Return the process ids of the agent's children."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(agent.process.pid)], stdout=subprocess.PIPE, check=False)
    return [int(pid) for pid in listed.stdout.split()]


@contextlib.contextmanager
def running(home: Home) -> Iterator[Running]:
    """Run the agent until the end of the block; it may be gone by then."""
    with home.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tflotilla.device", "--home", str(home.path), "run"],
            stdout=log,
            stderr=log,
            env={**os.environ, "TFLOTILLA_DEBUG": "1"},
        )
    agent = Running(home=home, process=process)
    try:
        yield agent
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
