"""What the page asks of files and databases: rollouts in the journal, benchmarks in the history, what was collected.

Each has one thread of its own, because both wait for disks and servers, and the page must not.
Rules it keeps: a journal that is away makes rollouts old, and says so; it does not end the page.
What it does NOT do: carry rollouts out; it writes people's words down, as the command line does.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from tflotilla.host.dashboards.web import benchmark_page, board_page, rollout_page
from tflotilla.host.rollouts.deciding import engine, people
from tflotilla.host.rollouts.journal import register
from tflotilla.host.telemetry.store import history
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.deployment import DeploymentStatus
from tflotilla.shared.contract.errors import ContractError, InputError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.benchmarks.sqlite import History
    from tflotilla.host.rollouts.deciding.people import Word
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.rollout import Rollout
    from tflotilla.host.telemetry.store.database import DatabaseStore
    from tflotilla.host.telemetry.store.history import Stored

R = TypeVar("R")
#: Those that are over are shown as long as they are among the newest.
_MOST_SHOWN = 20
_MOST_ENTRIES = 200
_KEPT_COMPARISONS = 8
_MOST_DEPLOYMENTS = 200
#: A board's clock may be a little ahead.
_AHEAD_S = 86400.0


class RolloutDesk:
    """Reads the journal, and writes people's words into it."""

    def __init__(self, open_journal: Callable[[], Journal]) -> None:
        """`open_journal` is called in the desk's thread, again after it failed."""
        self._open = open_journal
        self._journal: Journal | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._rollouts: dict[str, Rollout] = {}
        self._rows: dict[str, tuple[int, dict[str, Any]]] = {}
        #: Why what is shown may be old.
        self.problem: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return the rollouts as they were read last, newest first."""
        newest = list(reversed(self._rows.values()))
        return [
            row
            for place, (_events, row) in enumerate(newest)
            if place < _MOST_SHOWN or row["status"] not in rollout_page.OVER
        ]

    async def refresh(self) -> bool:
        """Read what was written since; return whether anything was."""
        try:
            changed = await self._run(self._refresh)
        except TflotillaError as error:
            changed = self.problem != str(error)
            self.problem = str(error)
            return changed
        changed = changed or self.problem is not None
        self.problem = None
        return changed

    async def detail(self, name: str) -> dict[str, Any]:
        """Return all of a rollout. Raises UsageError: there is none of that name; InputError: the journal is away."""
        return await self._run(partial(self._detail, name))

    async def deployments(self, board: str) -> list[dict[str, Any]]:
        """Return how a board fared in the rollouts that are known, in any order."""
        return await self._run(lambda: rollout_page.deployments(self._rollouts.values(), board))

    async def say(self, name: str, word: Word, *, sender: str, wave: int | None = None) -> dict[str, Any]:
        """Write down what a person said, and from which address, and say who obeys.

        Raises:
            UsageError: there is no such rollout, or wave.
            ConflictError: it makes no sense where the rollout stands.
            InputError: the journal is away.

        """
        return await self._run(partial(self._say, name, word, sender, wave))

    def close(self) -> None:
        """Let go of the journal."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _opened(self) -> Journal:
        if self._journal is None:
            self._journal = self._open()
        return self._journal

    def _refresh(self) -> bool:
        journal = self._opened()
        lengths = journal.lengths()
        newest = set(list(lengths)[-_MOST_SHOWN:])
        changed = False
        for name, length in lengths.items():
            events, row = self._rows.get(name, (0, None))
            if events == length and row is not None:
                continue
            changed = True
            self._rows[name] = (length, rollout_page.row(self._load(journal, name)))
            if self._rows[name][1]["status"] in rollout_page.OVER and name not in newest:
                # It was read once, to know that it is over.
                del self._rollouts[name]
        return changed

    def _load(self, journal: Journal, name: str) -> Rollout:
        known = self._rollouts.get(name)
        if known is None:
            known = register.load(journal, name)
        else:
            recorded = journal.events(name, after=known.events)
            known = engine.fold_all(known, ((each.event, each.at) for each in recorded))
        self._rollouts[name] = known
        return known

    def _detail(self, name: str) -> dict[str, Any]:
        journal = self._opened()
        rollout = self._load(journal, name)
        conductor = journal.conductor(name, at=time.time())
        return rollout_page.detail(rollout, conductor=conductor, audit=journal.audit_log())

    def _say(self, name: str, said: Word, sender: str, wave: int | None) -> dict[str, Any]:
        journal = self._opened()
        rollout = self._load(journal, name)
        event = people.word(rollout, said, wave=wave)
        now, by = time.time(), register.person()
        journal.audit(said, by=by, at=now, rollout=name, detail={"through": "dashboard", "from": sender})
        journal.append(name, [event], by=by, at=now)
        conductor = journal.conductor(name, at=now)
        who = f"{conductor} obeys" if conductor else "nobody conducts it now; `tflotilla controller` would go on"
        return {"rollout": name, "said": said, "conductor": conductor, "message": f"{said} is written down; {who}"}

    def _close(self) -> None:
        if self._journal is not None:
            self._journal.close()


class ReportDesk:
    """Reads what a collector kept: what happened on boards before this page listened."""

    def __init__(self, open_store: Callable[[], DatabaseStore | None]) -> None:
        """`open_store` returns None as long as nothing was collected; it is called in the desk's thread."""
        self._open = open_store
        self._store: DatabaseStore | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reports")

    async def deployments(self, board: str) -> list[dict[str, Any]]:
        """Return a board's deployments that ended, in any order; none where the store can't be read."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._deployments, board)

    def close(self) -> None:
        """Let go of the store."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    def _deployments(self, board: str) -> list[dict[str, Any]]:
        try:
            if self._store is None:
                self._store = self._open()
            if self._store is None:
                return []
            kept = history.messages(
                self._store, "reports", since=0.0, until=time.time() + _AHEAD_S, boards=[board], channel="deployment"
            )
            newest = deque((understood(each.payload, each) for each in kept), maxlen=_MOST_DEPLOYMENTS)
        except InputError:
            # What boards say now is shown all the same.
            return []
        return [each for each in newest if each is not None]

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()


def understood(payload: bytes, kept: Stored) -> dict[str, Any] | None:
    """Return a stored report as a deployment that ended; None for one that goes on, or that nobody can read."""
    try:
        document = codec.parse_json(payload, kept.channel)
        status = codec.decode(DeploymentStatus, document, kept.channel)
    except ContractError:
        return None
    return board_page.deployment(kept.time, status) if status.state.final else None


class BenchmarkDesk:
    """Reads the history of benchmarks, and compares what is in it; the last comparisons are kept."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="benchmarks")
        self._compared: dict[tuple[str, str, bool, bool], dict[str, Any]] = {}

    async def entries(self) -> dict[str, Any]:
        """Return what was saved. Raises InputError."""
        work = partial(self._history.entries, limit=_MOST_ENTRIES)
        return benchmark_page.entries(await asyncio.get_running_loop().run_in_executor(self._thread, work))

    async def compare(
        self, base: str, new: str, *, across_boards: bool = False, across_models: bool = False
    ) -> dict[str, Any]:
        """Hold a run against another, by id or name. Raises InputError: there is none of them."""
        work = partial(self._compare, base, new, across_boards, across_models)
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _compare(self, base: str, new: str, across_boards: bool, across_models: bool) -> dict[str, Any]:  # noqa: FBT001
        if not base or not new:
            raise InputError("name two benchmarks: base and new")
        first, second = self._history.find(base), self._history.find(new)
        key = (first.id, second.id, across_boards, across_models)
        if key not in self._compared:
            self._compared[key] = benchmark_page.document(
                first, second, across_boards=across_boards, across_models=across_models
            )
            while len(self._compared) > _KEPT_COMPARISONS:
                del self._compared[next(iter(self._compared))]
        return self._compared[key]
