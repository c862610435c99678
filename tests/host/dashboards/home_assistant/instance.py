"""A real Home Assistant on loopback, set up over its own API as a person sets it up in the browser."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests import brokers

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONFIGURATION = """\
http:
  server_host: 127.0.0.1
  server_port: {port}
logger:
  default: warning
"""
#: The first start installs what its default integrations need.
_STARTING_S = 300.0
_PATIENCE_S = 60.0


@dataclass(kw_only=True)
class Instance:
    """One Home Assistant; `token` after `onboard`."""

    python: Path
    folder: Path
    port: int
    token: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.folder / "output.log").read_text()

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "configuration.yaml").write_text(_CONFIGURATION.format(port=self.port))
        with (self.folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.python, "-m", "homeassistant", "--config", self.folder], stdout=log, stderr=log
            )
        brokers.until(self._is_up, "Home Assistant to answer", timeout_s=_STARTING_S)

    def stop(self) -> None:
        """End it as its service does."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def onboard(self) -> None:
        """Make the first user and log in."""
        client = f"http://127.0.0.1:{self.port}/"
        person = {"name": "A", "username": "a", "password": "open sesame", "language": "en", "client_id": client}
        code = self._said(httpx.post(f"{client}api/onboarding/users", json=person, timeout=_PATIENCE_S))["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        self.token = self._said(httpx.post(f"{client}auth/token", data=form, timeout=_PATIENCE_S))["access_token"]

    def connect(self, *, port: int, username: str, password: str) -> None:
        """Add the MQTT integration, as its dialog does."""
        flow = self.post("config/config_entries/flow", {"handler": "mqtt"})
        settings = {"broker": "127.0.0.1", "port": port, "username": username, "password": password}
        done = self.post(f"config/config_entries/flow/{flow['flow_id']}", settings)
        assert done["type"] == "create_entry", done

    def post(self, path: str, document: dict[str, Any]) -> Any:  # noqa: ANN401 - a JSON document
        """Call its API."""
        return self._said(
            httpx.post(self._url(path), json=document, headers=self._headers, timeout=_PATIENCE_S),
        )

    def get(self, path: str) -> httpx.Response:
        """Ask its API."""
        return httpx.get(self._url(path), headers=self._headers, timeout=_PATIENCE_S)

    def state(self, entity: str) -> str | None:
        """Return the state of an entity, None when there is no such."""
        found = self.get(f"states/{entity}")
        return None if found.status_code == httpx.codes.NOT_FOUND else str(self._said(found)["state"])

    def attributes(self, entity: str) -> dict[str, Any]:
        """Return the attributes of an entity, none when there is no such."""
        found = self.get(f"states/{entity}")
        return {} if found.status_code == httpx.codes.NOT_FOUND else dict(self._said(found)["attributes"])

    def entities(self, board: str) -> set[str]:
        """Return the entities of a board, by their ids."""
        return {each["entity_id"] for each in self._said(self.get("states")) if f".{board}_" in each["entity_id"]}

    def await_state(self, entity: str, wanted: str) -> None:
        """Wait until an entity has that state."""
        seen: list[str | None] = [None]

        def holds() -> bool:
            seen[0] = self.state(entity)
            return seen[0] == wanted

        brokers.until(holds, f"{entity} to be {wanted}", timeout_s=_PATIENCE_S)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/api/{path}"

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log[-3000:]
        with contextlib.suppress(httpx.HTTPError):
            # Without a token it says no; then it has its integrations up, too.
            return httpx.get(self._url(""), timeout=1).status_code == httpx.codes.UNAUTHORIZED
        return False

    @staticmethod
    def _said(answer: httpx.Response) -> Any:  # noqa: ANN401 - a JSON document
        assert answer.is_success, f"{answer.status_code}: {answer.text[:500]}"
        return answer.json()


@contextlib.contextmanager
def running(python: Path, folder: Path) -> Iterator[Instance]:
    """Run one for the time of the block, with a user logged in."""
    instance = Instance(python=python, folder=folder, port=brokers.free_port())
    try:
        instance.start()
        brokers.until(lambda: instance.get("onboarding").is_success, "onboarding to be offered")
        instance.onboard()
        yield instance
    finally:
        instance.stop()
