"""`/metrics` for Prometheus; the only door to prometheus-client.

The catalogue of what is served is `exposition.catalogue`; Prometheus's text or OpenMetrics, compressed or not, as the
asker says. Scrapes are answered in threads of their own, from what the last step left.

Rules it keeps: it publishes nothing; a scrape that hangs costs others nothing, and is given up.
What it does NOT do: ask who scrapes. Whoever reaches the address reads what boards report.
"""

from __future__ import annotations

import gzip
import socketserver
import threading
import wsgiref.simple_server
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder, gzip_accepted

from tflotilla.host.dashboards.bridges import Option
from tflotilla.host.dashboards.exposition import text
from tflotilla.host.dashboards.exposition.rendering import Scene, families
from tflotilla.host.dashboards.exposition.sums import STAGES, Sums
from tflotilla.shared.contract.errors import ConfigError, UsageError
from tflotilla.shared.contract.messages import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tflotilla.host.dashboards.bridges import News, Publication, Setting
    from tflotilla.host.dashboards.exposition.catalogue import Family

HELP = """Serve what the fleet reports at /metrics, for Prometheus.

Latencies are classic histograms that add up over boards, versions and hours; counters count since the bridge listens.
deploy/prometheus has a scrape configuration and alert rules, deploy/grafana a dashboard.

Example: tflotilla bridge prometheus --listen 127.0.0.1:9469

Exit codes: 0 stopped by Ctrl-C or --for, 2 bad options, 3 bad fleet file or the address is taken, 10 the broker is down
or refuses the password.
"""
_LISTEN = "127.0.0.1:9469"
_STAGES = "invoke,total"
_MOST_LABELS = "20"
OPTIONS = (
    Option(
        name="listen",
        default=_LISTEN,
        help=f"Where to serve; default {_LISTEN}, which this machine alone reaches.",
        metavar="HOST:PORT",
    ),
    Option(
        name="stages",
        default=_STAGES,
        help=f"Whose latencies are served, of {', '.join(STAGES)}; default {_STAGES}. Each costs 40 series per board.",
        metavar="STAGE,...",
    ),
    Option(
        name="top-labels",
        default=_MOST_LABELS,
        help=f"So many labels of each model are counted by name, the others together; default {_MOST_LABELS}.",
        metavar="N",
    ),
)
#: A scrape that takes or sends nothing for that long is given up.
_HANGING_S = 30.0
#: Text of this kind gets hardly smaller by trying harder.
_COMPRESSION = 1
_LOOPBACK = ("127.", "::1", "localhost")
_MOST_LABELS_EVER = 1000


def open_bridge(setting: Setting) -> PrometheusBridge:
    """Listen at the address of `--listen`.

    Raises:
        UsageError: an option makes no sense.
        ConfigError: the address can't be listened at.

    """
    host, port = _address(str(setting.options.get("listen", _LISTEN)))
    stages = _stages(str(setting.options.get("stages", _STAGES)))
    bridge = PrometheusBridge(setting, Sums(stages=stages, most_labels=_count(setting)), host, port)
    setting.tell(f"serving http://{_spoken(host)}:{bridge.port}/metrics")
    if not host.startswith(_LOOPBACK):
        setting.tell("note: --listen is not a loopback address, so whoever reaches it reads what boards report")
    return bridge


class PrometheusBridge:
    """A bridge; made by `open_bridge`."""

    also_hears: tuple[str, ...] = ()
    done = False

    def __init__(self, setting: Setting, sums: Sums, host: str, port: int) -> None:
        self._setting = setting
        self._sums = sums
        self._windows: dict[str, float] = {}
        self._scene: Scene | None = None
        self._since = 0.0
        self._connections = 0
        # The step writes sums while scrapes read them.
        self._lock = threading.Lock()
        self._server = _serving(host, port, _app(self.families))
        #: Where it listens, when `--listen` says port 0.
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="prometheus", daemon=True)
        self._thread.start()

    def step(self, news: News) -> Sequence[Publication]:
        """Add up what boards said, and note what is to be seen by the next scrape."""
        live = self._setting.live
        enrolled = {board: entry.labels for board, entry in news.fleet.boards.items()}
        self._since = self._since or news.now
        self._connections += news.begins
        with self._lock:
            for message in news.messages:
                if self._setting.unknown or message.board in enrolled:
                    # Counters count since we listen: a deployment that the broker remembers ended before.
                    if not live.boards[message.board].was_retold(message):
                        self._sums.add(message)
                    if isinstance(message.body, Metrics):
                        self._windows[message.board] = news.now
            boards = {board: view for board, view in live.boards.items() if self._setting.unknown or board in enrolled}
            if self._scene is not None and self._scene.boards.keys() - boards.keys():
                self._sums.keep(boards)
                self._windows = {board: at for board, at in self._windows.items() if board in boards}
            self._scene = Scene(
                fleet=news.fleet.name,
                now=news.now,
                since=self._since,
                connected=news.connected,
                connections=self._connections,
                boards=boards,
                enrolled=enrolled,
                windows=self._windows,
                garbage=live.garbage,
                foreign=live.foreign,
            )
        return ()

    def families(self) -> list[Family]:
        """Return what there is to see now; nothing before the first step."""
        with self._lock:
            return [] if self._scene is None else families(self._scene, self._sums)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _app(answer: Callable[[], list[Family]]) -> Any:  # noqa: ANN401 - a WSGI application
    def app(environ: Mapping[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            start_response("405 Method Not Allowed", [("Allow", "GET, HEAD")])
            return [b""]
        if environ["PATH_INFO"] not in {"/", "/metrics"}:
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"see /metrics\n"]
        # The words of the two formats are prometheus-client's to know, and what Prometheus means by asking for them.
        _, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        write = text.openmetrics if kind.startswith("application/openmetrics-text") else text.prometheus
        body = write(answer()).encode()
        headers = [("Content-Type", kind)]
        if gzip_accepted(environ.get("HTTP_ACCEPT_ENCODING", "")):
            body = gzip.compress(body, compresslevel=_COMPRESSION)
            headers.append(("Content-Encoding", "gzip"))
        start_response("200 OK", [*headers, ("Content-Length", str(len(body)))])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]

    return app


class _Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _Handler(wsgiref.simple_server.WSGIRequestHandler):
    timeout = _HANGING_S

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - as its parent has it
        """Say nothing: a line per scrape helps nobody."""


def _serving(host: str, port: int, app: Any) -> wsgiref.simple_server.WSGIServer:  # noqa: ANN401 - a WSGI application
    import socket

    class Server(_Server):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return wsgiref.simple_server.make_server(host, port, app, Server, _Handler)
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"--listen {_spoken(host)}:{port}: {reason}; name another address or port, or stop what listens there"
        raise ConfigError(message) from error


def _spoken(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _address(given: str) -> tuple[str, int]:
    host, colon, port = given.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) >= 1 << 16:
        message = f"--listen {given}: give HOST:PORT, as {_LISTEN}"
        raise UsageError(message)
    # Without a host it would be every address of this machine, which is to be asked for in words.
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def _stages(given: str) -> frozenset[str]:
    stages = frozenset(stage.strip() for stage in given.split(",") if stage.strip())
    for stage in sorted(stages - {*STAGES}):
        message = f"--stages {stage}: no such stage; there are {', '.join(STAGES)}"
        raise UsageError(message)
    return stages


def _count(setting: Setting) -> int:
    given = str(setting.options.get("top-labels", _MOST_LABELS))
    if not (given.isascii() and given.isdigit()) or int(given) > _MOST_LABELS_EVER:
        message = f"--top-labels {given}: give a number from 0 to {_MOST_LABELS_EVER}"
        raise UsageError(message)
    return int(given)
