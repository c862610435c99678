"""A real Prometheus (Debian's) on a free loopback port, that scrapes one target every second; and how it is asked.

Skips with a reason where Prometheus is not installed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from tests.brokers import free_port, until
from tests.host.dashboards.prometheus import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Prometheus:
    """One that runs."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)

    def ask(self, path: str, **parameters: str) -> Any:  # noqa: ANN401 - whatever the answer holds
        """Return the data of one answer of the API."""
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """Return (labels, value) of an instant query."""
        return [(each["metric"], float(each["value"][1])) for each in self.ask("query", query=promql)["result"]]

    def ready(self) -> bool:
        """Whether it answers questions."""
        try:
            return self._client.get("/-/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Run it with the shipped configuration, but for the target and the pace, and with the shipped rules."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    folder.mkdir()
    configuration = yaml.safe_load(shipped.SCRAPING.read_text())
    configuration["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = configuration["scrape_configs"]
    job |= {"scrape_timeout": "1s", "static_configs": [{"targets": [target]}]}
    configuration["rule_files"] = [str(shipped.RULES)]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        running = Prometheus(port)
        until(lambda: process.poll() is not None or running.ready(), "Prometheus to be ready")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield running
    finally:
        process.kill()
        process.wait(timeout=60)
