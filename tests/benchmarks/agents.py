"""A real agent in a home of its own, reporting to a real broker where there is one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests import brokers
from tflotilla.device import control
from tflotilla.device.home import Home
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.errors import BoardError
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
#: How often the agent reports.
WINDOW_S = 1.0
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An agent that serves."""

    home: Home
    pid: int

    def worker_pid(self) -> int:
        """Return the process id of its worker."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return next(int(pid) for pid in children if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


@contextlib.contextmanager
def broker(folder: Path) -> Iterator[int | None]:
    """Run a mosquitto and give its port; None where none is installed."""
    if shutil.which("mosquitto", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin") is None:
        yield None
        return
    with brokers.mosquitto(folder) as running:
        yield running.port


@contextlib.contextmanager
def serving(
    folder: Path, bundle: Path, *, runtime: str, port: int | None, interval_ms: float, worker: list[str] | None = None
) -> Iterator[Running]:
    """Run an agent on a bundle until the end of the block; `worker` is the command run in place of its worker.

    Without a broker (`port` None) reports end in the outbox.
    """
    home = Home(folder / "home")
    home.make()
    home.config.write_text(
        f'board = "pi-1"\nfleet = "bench"\n[mqtt]\nport = {port or brokers.free_port()}\n'
        f'[inference]\nruntime = "{runtime}"\n[source]\nkind = "synthetic"\ninterval_ms = {interval_ms}\n'
        f"[reporting]\nwindow_s = {WINDOW_S}\n"
    )
    (bundle / SIGNATURE).write_bytes(b"nobody looks at it any more once a bundle is admitted")
    installed = home.bundle(digest.of_bytes((bundle / MANIFEST).read_bytes()))
    shutil.copytree(bundle, installed)
    home.current.symlink_to(installed.relative_to(home.path))
    with home.log.open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-c", _AGENT, _launcher(folder, worker), str(home.path)],
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _serves(home):
            if agent.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the agent does not serve: {home.log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield Running(home=home, pid=agent.pid)
    finally:
        agent.terminate()
        agent.wait(_PATIENCE_S)


def _serves(home: Home) -> bool:
    if not control.is_running(home):
        return False
    try:
        (reply,) = control.ask(home, control.ControlRequest(verb="state"))
    except BoardError:
        # It is still starting.
        return False
    return reply.state is not None and reply.state.worker == "running"


#: The agent starts its children with `sys.executable -m …`: the launcher stands there and lets one of them be replaced.
_AGENT = """
import sys
launcher, home = sys.argv[1:]
sys.executable = launcher
from tflotilla.device import cli
sys.exit(cli.main(["--home", home, "run"]))
"""


def _launcher(folder: Path, worker: list[str] | None) -> str:
    if worker is None:
        return sys.executable
    words = " ".join(f"'{word}'" for word in worker)
    script = folder / "python"
    script.write_text(
        f'#!/bin/sh\ncase "$2" in\ntflotilla.device.worker) exec {words} ;;\nesac\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o700)
    return str(script)
