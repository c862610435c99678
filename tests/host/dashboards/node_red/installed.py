"""A real Node-RED from npm, installed once into this machine's cache, that runs a flow on a free loopback port.

Skips with a reason where there is no npm, or where it can't install.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.brokers import free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The newest that runs on the Node.js of Debian 12.
VERSION = "4.1.15"
FLOWS = Path(__file__).resolve().parents[4] / "deploy" / "node-red" / "flows.json"
_INSTALLING_S = 600
#: No editor, no news from elsewhere, nothing but this machine.
_SETTINGS = """\
module.exports = {
    uiHost: "127.0.0.1", httpAdminRoot: false, credentialSecret: false, disableEditor: true,
    telemetry: { enabled: false, updateNotification: false },
    logging: { console: { level: "info", metrics: false, audit: false } },
};
"""


def program() -> Path:
    """Return Node-RED's start script."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm is not installed (Debian: apt install npm)")
    cache = Path(os.environ.get("TFLOTILLA_CACHE") or Path.home() / ".cache/tflotilla")
    folder = cache / f"node-red-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "node_modules/node-red/red.js"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".complete").exists():
            # Nothing of what is installed is run for it.
            command = [npm, "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(
                [*command, "--omit=dev", f"node-red@{VERSION}"],
                capture_output=True,
                text=True,
                check=False,
                timeout=_INSTALLING_S,
            )
            if done.returncode != 0 or not found.exists():
                pytest.skip(f"npm can't install Node-RED: {done.stderr.strip()[-200:]}")
            (folder / ".complete").touch()
    return found


class NodeRed:
    """One that runs a flow."""

    def __init__(self, port: int, log: Path) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        self._log = log

    @property
    def log(self) -> str:
        """What it wrote, with what debug nodes say on the console."""
        return self._log.read_text()

    def get(self, path: str, **parameters: str) -> httpx.Response:
        """Ask an endpoint of the flow."""
        return self._client.get(path, params=parameters)

    def answers(self, path: str) -> bool:
        """Whether there is somebody."""
        try:
            return self.get(path).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def node_red(folder: Path, flows: list[dict[str, Any]], *, endpoint: str) -> Iterator[NodeRed]:
    """Run a flow until the end of the block; it has begun when `endpoint` answers."""
    start = program()
    folder.mkdir()
    (folder / "flows.json").write_text(json.dumps(flows))
    (folder / "settings.js").write_text(_SETTINGS)
    port = free_port()
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["node", str(start), "--userDir", str(folder), "--port", str(port), "flows.json"],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            stdout=out,
            stderr=out,
        )
    try:
        running = NodeRed(port, log)
        until(lambda: process.poll() is not None or running.answers(endpoint), "Node-RED to run the flow")
        assert process.poll() is None, running.log[-2000:]
        yield running
    finally:
        process.kill()
        process.wait(timeout=60)
