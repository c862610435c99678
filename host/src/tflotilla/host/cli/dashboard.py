"""`tflotilla dashboard`: the fleet as a live page in a browser."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import output, selecting, stored_telemetry, telemetry_store
from tflotilla.shared.contract.errors import UsageError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping

    from tflotilla.host.dashboards.web.access import Token
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.store.database import DatabaseStore

_DEFAULT = "127.0.0.1:8080"


def dashboard(
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where to serve; other than loopback, others can look.")
    ] = _DEFAULT,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Who has the token in it may approve, pause, abort, roll back, benchmark."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="Another name the page is asked under; repeated.")
    ] = None,
    fleet: selecting.FleetFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say where it is served as one line of JSON.")] = False,
) -> None:
    """Serve a live page of the fleet: boards, models, rollouts, benchmarks.

    It is read-only, and only this machine reaches it, unless you say otherwise. Nothing is loaded from elsewhere. With
    --token-file, who types the token into the page may act on rollouts and boards, with confirmation. From another
    machine, `ssh -L 8080:localhost:8080 HOST` shows it without opening it to all.

    Example: tflotilla dashboard --token-file dashboard-token

    Exit codes: 0 ended by Ctrl-C or SIGTERM, 2 usage, 3 fleet.toml, the token file, or the port is taken.
    """
    import asyncio

    from tflotilla.host.dashboards.web import access, server
    from tflotilla.host.fleet.inventory.fleet import Fleet

    host, port = parse_address(listen)
    loaded = Fleet.load(fleet)
    token = None if token_file is None else access.read_token(token_file, tell=output.note)
    opened = server.listen(host, port)
    if token is None and not access.is_loopback(host):
        output.note(f"whoever reaches {host} can look at the fleet; nobody can act, because there is no --token-file")
    elif not access.is_loopback(host):
        output.note(f"whoever reaches {host} can look at the fleet, and tokens go there unencrypted; better: ssh -L")
    bound = opened.getsockname()[1]
    url = f"http://{f'[{host}]' if ':' in host else host}:{bound}/"

    def ready() -> None:
        if as_json:
            sys.stdout.write(json.dumps({"url": url, "fleet": loaded.name, "writable": token is not None}) + "\n")
        else:
            typer.echo(f"{loaded.name}: {url}  (Ctrl-C ends it)")
        sys.stdout.flush()

    names = access.own_names(host, name or ())
    asyncio.run(_serve(loaded, opened, names, token, ready))


def parse_address(text: str) -> tuple[str, int]:
    """Read `127.0.0.1:8080`, `[::1]:8080`, `:8080` or `8080`. Raises UsageError."""
    found = re.fullmatch(r"(?:(\[[0-9a-fA-F:.%]+\]|[^:\s\[\]]*):)?(\d{1,5})", text.strip())
    if found is None or int(found[2]) >= 1 << 16:
        raise UsageError(f"--listen must be HOST:PORT, like {_DEFAULT}, not {text!r}")
    return (found[1] or "127.0.0.1").strip("[]"), int(found[2])


async def _serve(
    loaded: Fleet, opened: socket.socket, names: frozenset[str], token: Token | None, ready: Callable[[], None]
) -> None:
    from tflotilla.host.benchmarks.sqlite import FILE, History
    from tflotilla.host.dashboards.web import app, server
    from tflotilla.host.dashboards.web.desks import BenchmarkDesk, ReportDesk, RolloutDesk
    from tflotilla.host.dashboards.web.fleet_now import FleetNow
    from tflotilla.host.dashboards.web.listening import Ear
    from tflotilla.host.dashboards.web.site import Site
    from tflotilla.host.rollouts.journal import database

    now = FleetNow(loaded.name, {board: entry.labels for board, entry in loaded.boards.items()})
    ear = Ear(now, loaded.mqtt, folder=loaded.folder, fleet_file=loaded.path)
    rollouts = RolloutDesk(lambda: database.of_fleet(loaded, tell=output.note))
    benchmarks = BenchmarkDesk(History(loaded.state / FILE))
    reports = ReportDesk(lambda: collected(loaded))
    site = Site(
        now,
        rollouts,
        benchmarks,
        reports=reports,
        token=token,
        ask_benchmark=ear.benchmark,
        inventory=inventory_of(loaded),
    )
    ear.start()
    try:
        await server.serve(app.build(site, names=names), opened, ready=ready, ending=site.hub.close)
    finally:
        ear.stop()
        rollouts.close()
        benchmarks.close()
        reports.close()


def collected(loaded: Fleet) -> DatabaseStore | None:
    """Open what a collector of this fleet keeps, to read; None while there is nothing. Raises InputError."""
    url = telemetry_store.url(loaded, None)
    if "://" not in url and not Path(url).exists():
        return None
    return stored_telemetry.opened(loaded, None)


def inventory_of(loaded: Fleet) -> Callable[[], Mapping[str, Mapping[str, str]] | None]:
    """Return what reads the boards anew when fleet.toml was changed; one that can't be read changes nothing."""
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.shared.contract.errors import TflotillaError

    def stamp() -> tuple[int, int] | None:
        try:
            found = loaded.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    last = stamp()

    def changed() -> Mapping[str, Mapping[str, str]] | None:
        nonlocal last
        new = stamp()
        if new is None or new == last:
            return None
        last = new
        try:
            return {board: entry.labels for board, entry in Fleet.load(loaded.path).boards.items()}
        except TflotillaError:
            return None

    return changed
