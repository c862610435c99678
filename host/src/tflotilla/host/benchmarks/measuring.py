"""Have boards measure: deliver what is to be measured, ask over MQTT or SSH, and bring every answer home.

Rules it keeps: what boards have is not sent again; a board that can't run a bundle gets no byte of it; a line or a
broker that breaks is connected again and the same request asked again, which costs nothing; one bad board never stops
the others, and what it had found stays.
What it does NOT do: choose configurations, print, or keep results.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tflotilla.host.benchmarks import interruption, plan
from tflotilla.host.benchmarks.asking import ask, cancel
from tflotilla.host.benchmarks.results import BoardRun
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import pool, push, sessions
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.fleet.lines import ssh
from tflotilla.host.fleet.lines.cuts import WAITS_S
from tflotilla.host.fleet.transfer import files as transfer_files
from tflotilla.host.telemetry import mqtt
from tflotilla.shared.contract import digest
from tflotilla.shared.contract.benchmark import BenchmarkReport, BenchmarkRequest, Configuration, Method
from tflotilla.shared.contract.board import BoardFacts
from tflotilla.shared.contract.errors import BoardError, ConfigError, TflotillaError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.fleet.sessions import Session
    from tflotilla.shared.contract.benchmark import BenchmarkCell

_CANCEL_S = 10.0
Way = Literal["mqtt", "ssh"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured: a bundle that is brought along, or (None) what serves; with samples of its own, or without."""

    bundle: Bundle | None = None
    #: As `inference.sample_set` writes them.
    samples: bytes | None = None

    @property
    def travels(self) -> bool:
        """Whether something must be brought to the board."""
        return self.bundle is not None or self.samples is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurer:
    """How boards of a fleet are asked to measure."""

    fleet: Fleet
    way: Way
    #: Boards that measure at the same time.
    at_once: int = 100
    #: Between two answers of a board; None is what the method takes.
    timeout_s: float | None = None
    tell: Callable[[str], None] = lambda _text: None
    on_report: Callable[[str, BenchmarkReport], None] = lambda _board, _report: None
    _talks: list[_Talk] = field(default_factory=list, init=False, repr=False, compare=False)

    def measure(
        self,
        boards: Sequence[str],
        subject: Subject,
        method: Method,
        choose: Callable[[BoardFacts], tuple[Configuration, ...]],
    ) -> tuple[BoardRun, ...]:
        """Measure one subject on some boards; `choose` picks a board's configurations from what it is.

        Returns:
            One for each board, in their order; errors are in them.

        Raises:
            VerificationError: the bundle is not signed for this fleet.
            BrokerError: the broker can't be reached, or refuses.

        """
        if subject.bundle is not None:
            push.verify(self.fleet, subject.bundle)
        if subject.samples is not None:
            method = dataclasses.replace(method, inputs="samples", samples=digest.of_bytes(subject.samples))
        order = _Order(
            id=secrets.token_hex(8),
            subject=subject,
            method=method,
            choose=choose,
            patience_s=plan.patience_s(method) if self.timeout_s is None else self.timeout_s,
        )
        talks = {board: _Talk(self, board, order) for board in boards}
        self._talks.extend(talks.values())
        try:
            return self._over_ssh(talks) if self.way == "ssh" else self._over_mqtt(talks, order)
        finally:
            for talk in talks.values():
                self._talks.remove(talk)

    def abandon(self) -> None:
        """Have boards end what they were asked for, on Ctrl-C: a thread that waits in `measure` hears nothing of it.

        A board that can't be told ends by itself when it has measured all it was asked for.
        """
        with interruption.held_off():
            self._cancel_all({talk.board: talk for talk in tuple(self._talks) if talk.going_on})

    def _cancel_all(self, talks: Mapping[str, _Talk]) -> None:
        if self.way == "ssh":
            pool.run(tuple(talks), lambda board: talks[board].cancel(), forks=self.at_once)
        elif talks and self.fleet.mqtt is not None:
            with (
                contextlib.suppress(TflotillaError),
                mqtt.connect(self.fleet.mqtt, folder=self.fleet.folder) as broker,
            ):
                for board, talk in talks.items():
                    cancel(broker, self.fleet.name, board, talk.id)

    def cells(
        self, board: str, subject: Subject, method: Method, configurations: tuple[Configuration, ...]
    ) -> tuple[BenchmarkCell, ...]:
        """Measure some configurations on one board. Raises the TflotillaError that kept it from all of them."""
        (run,) = self.measure((board,), subject, method, lambda _facts: configurations)
        if run.error is not None:
            raise run.failure or BoardError(run.error)
        return run.cells

    def _over_ssh(self, talks: Mapping[str, _Talk]) -> tuple[BoardRun, ...]:
        try:
            found = pool.run(tuple(talks), lambda board: talks[board].hold(ask=True), forks=self.at_once)
        except KeyboardInterrupt:
            # Whoever asked does not want it any more, so the boards need not go on.
            self.abandon()
            raise
        return tuple(talks[result.board].run(result.error) for result in found)

    def _over_mqtt(self, talks: Mapping[str, _Talk], order: _Order) -> tuple[BoardRun, ...]:
        if self.fleet.mqtt is None:
            raise ConfigError(
                f"{self.fleet.path} has no [mqtt] table, so no board can be asked over it; add one, or use --over ssh"
            )
        ready, failures = tuple(talks), {}
        if order.subject.travels:
            sent = pool.run(ready, lambda board: talks[board].hold(ask=False))
            ready = tuple(result.board for result in sent if result.ok)
            failures = {result.board: result.error for result in sent if not result.ok}
        asking = plan.Asking(
            request=order.id,
            boards=ready,
            patience_s=order.patience_s,
            began=time.monotonic(),
            at_once=self.at_once,
        )
        if ready:
            with mqtt.connect(self.fleet.mqtt, folder=self.fleet.folder) as broker:
                asking = ask(
                    broker,
                    self.fleet.name,
                    asking,
                    build=lambda board, facts: talks[board].request(facts),
                    on_report=lambda board, report: talks[board].hear(report),
                    tell=self.tell,
                )
        failures.update(asking.failures)
        return tuple(talk.run(failures.get(board)) for board, talk in talks.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    id: str
    subject: Subject
    method: Method
    choose: Callable[[BoardFacts], tuple[Configuration, ...]]
    patience_s: float

    def request(self, facts: BoardFacts) -> BenchmarkRequest:
        bundle = self.subject.bundle
        return BenchmarkRequest(
            request=self.id,
            configurations=self.choose(facts),
            method=self.method,
            bundle=None if bundle is None else bundle.digest,
        )


class _Talk:
    """One board's part in an order, over as many connections as it takes."""

    def __init__(self, measurer: Measurer, board: str, order: _Order) -> None:
        self.board = board
        self.id = order.id
        self._measurer = measurer
        self._order = order
        self._request: BenchmarkRequest | None = None
        self._reports: dict[int, BenchmarkReport] = {}
        self._lock = threading.Lock()
        self._heard = 0.0

    def request(self, facts: BoardFacts) -> BenchmarkRequest:
        """Return the same request however often it is asked."""
        if self._request is None:
            self._request = self._order.request(facts)
        return self._request

    def hear(self, report: BenchmarkReport) -> None:
        with self._lock:
            new = report.position not in self._reports
            self._reports[report.position] = report
            self._heard = time.monotonic()
        if new:
            self._measurer.on_report(self.board, report)

    @property
    def going_on(self) -> bool:
        """Whether the board was asked and has not answered to the end."""
        total = next((report.total for report in self._reports.values()), 1)
        return self._request is not None and len(self._reports) < total

    def cancel(self) -> None:
        """Ask the board to end what it was asked for."""
        entry = self._measurer.fleet.board(self.board)
        request = BenchmarkRequest(request=self.id, cancel=True)
        with (
            ssh.connect(self.board, entry, self._measurer.fleet) as link,
            sessions.open_session(link, entry.install) as session,
        ):
            for _ in session.benchmark(request, patience_s=_CANCEL_S):
                pass

    def run(self, error: TflotillaError | None) -> BoardRun:
        """Return what came of it."""
        found = [report for _, report in sorted(self._reports.items())]
        identity = next((report.identity for report in found if report.identity is not None), None)
        bundle = self._order.subject.bundle
        # A rerun of a board that was never asked is of this bundle, not of what serves there.
        asked = self._request or BenchmarkRequest(
            request=self._order.id, method=self._order.method, bundle=None if bundle is None else bundle.digest
        )
        title = bundle.manifest.title if bundle is not None else ""
        return BoardRun(
            board=self.board,
            model=identity.title if identity is not None else title,
            request=asked,
            identity=identity,
            cells=tuple(report.cell for report in found if report.cell is not None),
            error=None if error is None else str(error),
            error_kind=None if error is None else type(error).__name__,
        )

    def hold(self, *, ask: bool) -> None:
        """Connect, deliver and (where `ask`) follow the benchmark to its end, again after each cut."""
        entry = self._measurer.fleet.board(self.board)
        cuts = 0
        while True:
            connected = False
            before = len(self._reports)
            try:
                with ssh.connect(self.board, entry, self._measurer.fleet) as link:
                    connected = True
                    with sessions.open_session(link, entry.install) as session:
                        self._measurer.fleet.save_hello(self.board, session.hello)
                        self._attempt(session, ask=ask)
                        session.bye()
            except UnreachableError as error:
                if self._overdue():
                    self._give_up()
                    patience = f"{self._order.patience_s:g} s; --timeout waits longer"
                    raise UnreachableError(f"{self.board} did not answer within {patience}") from error
                # A board that went on measuring meanwhile has earned its patience anew.
                cuts = 0 if len(self._reports) > before else cuts
                begun = self._request is not None and ask
                if (cuts == 0 and not connected and not begun) or cuts >= len(WAITS_S):
                    raise
                self._measurer.tell(f"{self.board}: the line broke; trying again")
                time.sleep(WAITS_S[cuts])
                cuts += 1
            else:
                return

    def _overdue(self) -> bool:
        """Whether the board was asked and had all the time it was given."""
        return self._heard > 0 and time.monotonic() - self._heard >= self._order.patience_s

    def _give_up(self) -> None:
        # Nobody waits for it any more; where it can't be told, it goes on to its own end.
        with contextlib.suppress(TflotillaError):
            self.cancel()

    def _attempt(self, session: Session, *, ask: bool) -> None:
        if not session.hello.running:
            if self._request is not None:
                raise UnreachableError(f"{self.board}: its agent went away and is not back yet")
            raise BoardError(f"{self.board}: its agent doesn't run; `tflotilla board bootstrap {self.board}` starts it")
        if self._request is None or not ask:
            self._deliver(session)
        if not ask:
            return
        request = self.request(session.hello.facts)
        self._heard = self._heard or time.monotonic()
        for report in session.benchmark(request, patience_s=self._order.patience_s):
            if report.error is not None:
                raise BoardError(f"{self.board} can't measure: {report.error}")
            self.hear(report)

    def _deliver(self, session: Session) -> None:
        subject = self._order.subject
        # What is there already needs no room, whatever else: how it runs its cells will say.
        if (bundle := subject.bundle) is not None and not session.offer(bundle.digest).present:
            push.preflight(self.board, self._measurer.fleet, bundle, session.hello)
            missing = session.manifest(bundle.manifest_bytes, bundle.signature or b"", purpose="benchmark")
            self._measurer.tell(f"{self.board}: sending {bundle.manifest.title}")
            transfer_files.send(session, self.board, bundle, missing, on_bytes=lambda _sent, _total: None)
        sha256 = self._order.method.samples
        if subject.samples is not None and sha256 is not None and not session.has_samples(sha256):
            import io

            self._measurer.tell(f"{self.board}: sending samples, {len(subject.samples) / 1e6:.1f} MB")
            session.samples(
                sha256,
                len(subject.samples),
                io.BytesIO(subject.samples),
                on_bytes=lambda _sent: None,
            )
