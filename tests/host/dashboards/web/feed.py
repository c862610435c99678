"""The page with a fleet that isn't there: no broker, no boards, for whoever works on the page or measures it.

    python -m tests.host.dashboards.web.feed --boards 40 --port 8099

The token is `feed-token-feed-token`. Rollouts and benchmarks are real, in a folder that is thrown away; the rollout
that waits for approval goes on when it is approved. `--away-after 30` loses the broker after so many seconds, for ten.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.host.dashboards.web import simulated, stories
from tflotilla.host.benchmarks.sqlite import FILE, History
from tflotilla.host.dashboards.web import access, app, server
from tflotilla.host.dashboards.web.access import Token
from tflotilla.host.dashboards.web.desks import BenchmarkDesk, RolloutDesk
from tflotilla.host.dashboards.web.fleet_now import FleetNow
from tflotilla.host.dashboards.web.site import Site
from tflotilla.host.rollouts.journal import database

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "feed-token-feed-token"
FLEET = "greenhouse"
_AWAY_S = 10.0


@dataclass(slots=True)
class Made:
    """A site whose fleet is simulated."""

    site: Site
    now: FleetNow
    boards: list[simulated.Board]
    #: Boards that were asked to measure.
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def made(
    boards: int, *, folder: Path, token: str | None = TOKEN, predictions: bool = True, token_delay_s: float = 1.0
) -> Iterator[Made]:
    """Make a site with so many boards; one board of fleet.toml never speaks, and one that speaks isn't in it."""
    names = simulated.names(boards)
    inventory: Mapping[str, Mapping[str, str]] = {
        name: simulated.labels(number) for number, name in enumerate([*names, "pi-new"])
    }
    stories.write_rollouts(folder, names)
    stories.write_benchmarks(folder, names[:2])
    now = FleetNow(FLEET, inventory)
    rollouts = RolloutDesk(
        lambda: database.open_journal(f"sqlite:///{folder / database.FILE}", witness=folder / "rollouts.head")
    )
    benchmarks = BenchmarkDesk(History(folder / FILE))
    asked: list[str] = []

    async def ask(board: str) -> str:
        asked.append(board)
        return f"dashboard-{len(asked)}"

    site = Site(
        now,
        rollouts,
        benchmarks,
        token=None if token is None else Token(token, delay_s=token_delay_s),
        ask_benchmark=ask,
    )
    speaking = [
        simulated.Board(name, number, fleet=FLEET, predictions=predictions)
        for number, name in enumerate([*names, "stranger"])
    ]
    try:
        yield Made(site=site, now=now, boards=speaking, asked=asked)
    finally:
        rollouts.close()
        benchmarks.close()


def _speak(made_site: Made, folder: Path, stop: threading.Event, away_after: float | None) -> None:
    now = made_site.now
    conductor = stories.Conductor(folder)
    begun = time.time()
    now.connection(connected=True)
    for board in made_site.boards:
        now.hear(board.births(begun))
    # So that curves have a past.
    for back in range(60, 0, -1):
        for board in made_site.boards:
            now.hear(itertools.islice(board.window(begun - back), 1))
    step = 0
    while not stop.is_set():
        step += 1
        away = away_after is not None and away_after <= time.time() - begun < away_after + _AWAY_S
        now.connection(connected=not away, reason="the connection to the MQTT broker was lost")
        conductor.step()
        # Spread over the second, as boards are.
        share = max(1, len(made_site.boards) // 10)
        for start in range(0, len(made_site.boards), share):
            if not away:
                for board in made_site.boards[start : start + share]:
                    now.hear(board.window(time.time()))
                    if (step + board.number) % 3 == 0 and board.number % 2 == 0 and board.trouble is None:
                        now.hear([board.picture(time.time())])
            if stop.wait(share / len(made_site.boards)):
                break
    conductor.close()


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boards", type=int, default=40)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--away-after", type=float, default=None)
    given = parser.parse_args()
    opened = server.listen("127.0.0.1", given.port)
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="tflotilla-feed-") as folder:
        token = None if given.read_only else TOKEN
        with made(given.boards, folder=Path(folder), token=token) as site:
            speaker = threading.Thread(target=_speak, args=(site, Path(folder), stop, given.away_after), daemon=True)
            speaker.start()
            application = app.build(site.site, names=access.own_names("127.0.0.1"))

            def ready() -> None:
                print(f"http://127.0.0.1:{opened.getsockname()[1]}/ token {TOKEN}", flush=True)  # noqa: T201 - its only word

            asyncio.run(server.serve(application, opened, ready=ready, ending=site.site.hub.close))
            stop.set()
            speaker.join(timeout=5)


if __name__ == "__main__":
    main()
