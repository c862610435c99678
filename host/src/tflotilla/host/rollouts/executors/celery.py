"""Jobs done by Celery's workers, on other machines too, over Redis: for fleets that one machine has outgrown.

    conductor                         Redis                                worker, with any number of threads
    submit ──── ticket, message ────▶ queue ────────── message ──────────▶ claim, ticket still ours? ── perform
    results ◀──────────────────────── list of results ◀────────────────── result, claim given back

Celery hands the messages out. Beside them, in the same Redis, lie for every job a *ticket*, which the executor renews
as long as it wants the job begun, and a *claim*, which the worker renews while it works. Both run out by themselves.

Rules it keeps: a job is begun by nobody once it was withdrawn, its executor is gone, or it was done; one is never done
by two at once; a job whose worker died is handed out again as soon as its claim has run out, whatever Redis still
remembers of it; jobs that Redis forgot are handed out again. Jobs are idempotent, so all this only saves work.
What it does NOT do: need Redis to keep anything over a restart, or carry bundles: workers read fleet.toml's folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import threading
import time
import urllib.parse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.exceptions import Ignore
from kombu.exceptions import OperationalError

from tflotilla.host.rollouts import pushing
from tflotilla.host.rollouts.jobs import Job, JobProgress, JobResult
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BrokerError, ConflictError, ContractError, TflotillaError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

TASK = "tflotilla.rollouts.job"
#: A message whose worker vanished comes again by Celery after this; claims notice far sooner.
_VISIBILITY_S = 3600
#: An executor that says nothing for so long is gone; longer than any single step of a conductor.
_TICKET_S = 120
#: A worker that says nothing for so long is gone.
CLAIM_S = 30.0
_LOOK_EVERY_S = 2.0
#: A job that no worker takes for so long is one that could not be done now.
PATIENCE_S = 600.0
#: A message may be in the hands of a worker that died before it began: so often there is another one.
REMIND_S = 30.0
_AWAY_S = 300.0
_MOST_LOSSES = 3
_LONGEST_WAIT_S = 10.0
_KEPT_S = 7 * 86400
_MOST_PROGRESS = 1000
_TRIES, _PAUSE_S = 12, 5.0
#: Marks a ticket as used, if it is still this one: from then on a job without a claim is one whose worker died.
_USE_TICKET = """
local ticket = redis.call('get', KEYS[1])
if ticket == ARGV[1] or ticket == ARGV[2] then return redis.call('set', KEYS[1], ARGV[2], 'KEEPTTL') end
"""
_USED = ":used"
#: Gives a claim back, if it is still this one's.
_GIVE_BACK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end"


class _Store:
    """Redis as both ends use it: Celery's queue, and the keys beside it. Safe to use from many threads."""

    def __init__(self, broker: str) -> None:
        self.app = application(broker)
        self.errors: tuple[type[Exception], ...] = (
            *self.app.backend.connection_errors,
            *self.app.backend.channel_errors,
            OperationalError,
        )
        self._broker = broker

    @functools.cached_property
    def redis(self) -> Any:  # noqa: ANN401 - Celery has no types
        """Celery's own client: what it can reach, we can. Kept, because Celery makes one for each thread."""
        return self.app.backend.client

    def away(self, error: Exception) -> BrokerError:
        """Put an error of Redis in a line, without the password that stands in its URL."""
        parts = urllib.parse.urlsplit(self._broker)
        port = f":{parts.port}" if parts.port else ""
        where = f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
        return BrokerError(f"Redis at {where} can't be used: {pushing.one_line(str(error))}")

    def drain(self, keys: Iterable[str]) -> list[bytes]:
        """Take everything out of lists."""
        found: list[bytes] = []
        for key in keys:
            pipeline = self.redis.pipeline(transaction=True)
            pipeline.lrange(key, 0, -1)
            pipeline.delete(key)
            found += pipeline.execute()[0]
        return found


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A job that was submitted, and whose result was not fetched yet; times are of the monotonic clock."""

    job: Job
    nonce: str
    since: float
    reminded: float
    withdrawn: bool = False
    #: A worker was seen at it.
    begun: bool = False
    losses: int = 0


class CeleryExecutor:
    """Implements `jobs.Executor`."""

    def __init__(
        self,
        broker: str,
        *,
        forks: int,
        patience_s: float = PATIENCE_S,
        remind_s: float = REMIND_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Connect to nothing yet; `forks` jobs may be under way, however many workers there are."""
        self._store = _Store(broker)
        self._forks = forks
        self._patience_s = patience_s
        self._remind_s = remind_s
        self._clock = clock
        self._sleep = sleep
        self._pending: dict[str, _Pending] = {}
        #: Fetched, and not returned yet: an error in between loses none.
        self._finished: list[JobResult] = []
        #: Rollouts that were ever submitted for.
        self._rollouts: dict[str, None] = {}
        self._looked = clock()
        self._away_since: float | None = None
        self._closed = False

    @property
    def capacity(self) -> int:
        """How many jobs may be under way."""
        return self._forks

    def submit(self, job: Job) -> None:
        """Hand a job out. Raises BrokerError when Redis is away, ConflictError when the executor is closed."""
        if self._closed:
            message = f"{job.board}: nothing more is begun, the rollout is being left"
            raise ConflictError(message)
        if job.key in self._pending:
            return
        self._rollouts[job.rollout] = None
        try:
            self._pending[job.key] = self._hand_out(job, losses=0)
        except self._store.errors as error:
            raise self._store.away(error) from error

    def results(self, *, timeout_s: float) -> Sequence[JobResult]:
        """Wait until a job is done, at most that long, and return all that are; each result once.

        Raises:
            BrokerError: Redis has been away for minutes.

        """
        if self._pending and not self._finished:
            now = self._clock()
            due = self._looked + _LOOK_EVERY_S
            try:
                self._fetch(timeout_s=max(0.0, min(timeout_s, due - now, _LONGEST_WAIT_S)))
                if self._clock() >= due:
                    self._look_after()
                self._away_since = None
            except self._store.errors as error:
                self._away_since = self._away_since or now
                if now - self._away_since > _AWAY_S:
                    raise self._store.away(error) from error
                self._sleep(min(timeout_s, 1.0))
        found, self._finished = self._finished, []
        return found

    def progress(self) -> Sequence[JobProgress]:
        """Return what was told since this was last asked."""
        told: list[JobProgress] = []
        with contextlib.suppress(*self._store.errors):
            for text in self._store.drain(_progress_key(name) for name in self._rollouts):
                with contextlib.suppress(ContractError):
                    told.append(codec.decode(JobProgress, codec.parse_json(text, "progress"), "progress"))
        return told

    def close(self) -> None:
        """Withdraw what no worker has begun; what is under way is left to the workers."""
        self._closed = True
        tickets = [_ticket_key(key) for key in self._pending]
        with contextlib.suppress(*self._store.errors):
            if tickets:
                self._store.redis.delete(*tickets)
        self._store.app.close()

    def _hand_out(self, job: Job, *, losses: int) -> _Pending:
        nonce = os.urandom(8).hex()
        self._store.redis.set(_ticket_key(job.key), nonce, ex=_TICKET_S)
        self._send(job, nonce)
        return _Pending(job=job, nonce=nonce, since=self._clock(), reminded=self._clock(), losses=losses)

    def _send(self, job: Job, nonce: str) -> None:
        self._store.app.send_task(TASK, args=[codec.encode(job), nonce], task_id=job.key, ignore_result=True)

    def _fetch(self, *, timeout_s: float) -> None:
        """Take in the results that are there; wait for one at most that long."""
        keys = [_results_key(name) for name in self._rollouts]
        # 0 would be for ever.
        first = self._store.redis.blpop(keys, timeout=timeout_s) if timeout_s > 0 else None
        for text in [*([] if first is None else [first[1]]), *self._store.drain(keys)]:
            with contextlib.suppress(ContractError):
                self._finish(codec.parse_json(text, "result"))

    def _finish(self, document: Any) -> None:  # noqa: ANN401 - parsed JSON
        pending = self._pending.get(str(document.get("key"))) if isinstance(document, dict) else None
        if pending is None:
            # Of a conductor before this one, who asked for the same and is gone.
            return
        result = codec.decode(JobResult, {**document, "job": codec.encode(pending.job)}, "result")
        self._end(result)

    def _end(self, result: JobResult) -> None:
        del self._pending[result.job.key]
        self._finished.append(result)

    def _look_after(self) -> None:
        """Renew the tickets, and hand out again what was lost."""
        self._looked = self._clock()
        looked_at = list(self._pending.values())
        keys = [key for each in looked_at for key in (_ticket_key(each.job.key), _claim_key(each.job.key))]
        if not keys:
            return
        states = self._store.redis.mget(keys)
        # A worker leaves its result and gives its claim back in one step: who has no claim now has its result there.
        self._fetch(timeout_s=0)
        for pending, ticket, claim in zip(looked_at, states[::2], states[1::2], strict=True):
            if pending.job.key in self._pending:
                self._look_after_one(pending, (ticket or b"").decode(), claimed=claim is not None)

    def _look_after_one(self, pending: _Pending, ticket: str, *, claimed: bool) -> None:
        job = pending.job
        used = ticket == pending.nonce + _USED
        valid = used or ticket == pending.nonce
        pending.begun = pending.begun or used or claimed
        if valid:
            self._store.redis.expire(_ticket_key(job.key), _TICKET_S)
        if claimed:
            return
        if pending.withdrawn:
            message = f"{job.board}: no worker took the job within {self._patience_s / 60:.0f} minutes; is one running?"
            self._end(pushing.failed(job, UnreachableError(message), begun=pending.begun))
        elif used and pending.losses + 1 >= _MOST_LOSSES:
            self._store.redis.delete(_ticket_key(job.key))
            message = f"{job.board}: {_MOST_LOSSES} workers died doing this job; the last words are in their logs"
            self._end(pushing.failed(job, TflotillaError(message)))
        elif used or not valid:
            again = self._hand_out(job, losses=pending.losses + (1 if used else 0))
            again.begun = pending.begun
            self._pending[job.key] = again
        elif self._clock() - pending.since > self._patience_s:
            # Judged next time: a worker may have used the ticket before it went, and then shows a claim.
            self._store.redis.delete(_ticket_key(job.key))
            pending.withdrawn = True
        elif self._clock() - pending.reminded > self._remind_s:
            # Whoever finds the first one too drops this: they have one ticket.
            self._send(job, pending.nonce)
            pending.reminded = self._clock()


class _Worker:
    """What one worker process needs beside Celery; safe to use from many threads."""

    def __init__(
        self, store: _Store, perform: Callable[..., JobResult], *, claim_s: float, fleet_file: str | None
    ) -> None:
        self._store = store
        self._perform = perform
        self._claim_s = claim_s
        self._fleet_file = fleet_file
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._renewing = False

    def run(self, task: Any, document: Any, nonce: str) -> None:  # noqa: ANN401 - Celery's task; parsed JSON
        """Do one job, unless it is not to be done any more."""
        job = codec.decode(Job, document, "job")
        claim = _claim_key(job.key)
        mine = os.urandom(8).hex()
        if not self._insist(lambda: self._store.redis.set(claim, mine, nx=True, px=int(self._claim_s * 1000))):
            if self._wanted(job, nonce):
                # Another one is at it. If that one dies, this message may be the only one left.
                raise task.retry(countdown=_PAUSE_S, max_retries=None)
            raise Ignore
        # The claim first, then the ticket: who withdraws it, and sees no claim later, knows that nobody began.
        if not self._use(job, nonce):
            self._insist(lambda: self._store.redis.eval(_GIVE_BACK, 1, claim, mine))
            raise Ignore
        self._hold(claim)
        try:
            result = self._perform(self._here(job), _Teller(self._store, job.rollout))
        except Exception as error:  # noqa: BLE001 - a bug must not leave a board without its result
            result = pushing.failed(job, error)
        self._insist(lambda: self._deliver(job, result))
        with self._lock:
            self._held.discard(claim)

    def _here(self, job: Job) -> Job:
        return job if self._fleet_file is None else dataclasses.replace(job, fleet_file=self._fleet_file)

    def _wanted(self, job: Job, nonce: str) -> bool:
        found = self._insist(lambda: self._store.redis.get(_ticket_key(job.key)))
        return found in (nonce.encode(), (nonce + _USED).encode())

    def _use(self, job: Job, nonce: str) -> bool:
        key = _ticket_key(job.key)
        return bool(self._insist(lambda: self._store.redis.eval(_USE_TICKET, 1, key, nonce, nonce + _USED)))

    def _deliver(self, job: Job, result: JobResult) -> None:
        document = codec.encode(result)
        del document["job"]
        pipeline = self._store.redis.pipeline(transaction=True)
        pipeline.rpush(_results_key(job.rollout), json.dumps({**document, "key": job.key}, allow_nan=False))
        pipeline.expire(_results_key(job.rollout), _KEPT_S)
        # Whoever wants it done has its result: also messages that ask for it once more are void.
        pipeline.delete(_claim_key(job.key), _ticket_key(job.key))
        pipeline.execute()

    def _hold(self, claim: str) -> None:
        with self._lock:
            self._held.add(claim)
            if not self._renewing:
                self._renewing = True
                threading.Thread(target=self._renew, name="claims", daemon=True).start()

    def _renew(self) -> None:
        while True:
            time.sleep(self._claim_s / 3)
            with self._lock:
                held = sorted(self._held)
            with contextlib.suppress(*self._store.errors):
                pipeline = self._store.redis.pipeline(transaction=False)
                for claim in held:
                    pipeline.pexpire(claim, int(self._claim_s * 1000))
                pipeline.execute()

    def _insist(self, ask: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever Redis answers
        """Ask Redis until it answers; it may be on its way back. Raises its error after a minute."""
        for _try in range(_TRIES - 1):
            try:
                return ask()
            except self._store.errors:
                time.sleep(_PAUSE_S)
        return ask()


class _Teller:
    """Passes progress on, as far as people can read it; what gets lost is lost."""

    def __init__(self, store: _Store, rollout: str) -> None:
        self._store = store
        self._key = _progress_key(rollout)
        self._told = 0.0

    def __call__(self, progress: JobProgress) -> None:
        # Bytes come hundreds of times a second, steps rarely: those all count.
        now = time.monotonic()
        if progress.sent is not None and progress.sent != progress.total and now - self._told < 1:
            return
        self._told = now
        with contextlib.suppress(*self._store.errors):
            pipeline = self._store.redis.pipeline(transaction=False)
            pipeline.rpush(self._key, json.dumps(codec.encode(progress)))
            pipeline.ltrim(self._key, -_MOST_PROGRESS, -1)
            pipeline.expire(self._key, _TICKET_S)
            pipeline.execute()


def application(broker: str) -> Celery:
    """Return the Celery application as both ends use it; connects to nothing."""
    app = Celery("tflotilla", broker=broker, backend=broker, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_ignore_result=True,
        task_default_queue="tflotilla",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_S,
            "socket_connect_timeout": _LONGEST_WAIT_S,
            "socket_timeout": 3 * _LONGEST_WAIT_S,
        },
        redis_socket_connect_timeout=_LONGEST_WAIT_S,
        redis_socket_timeout=3 * _LONGEST_WAIT_S,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2},
    )
    return app


def worker_application(
    broker: str,
    *,
    perform: Callable[..., JobResult] = pushing.perform,
    claim_s: float = CLAIM_S,
    fleet_file: str | None = None,
) -> Celery:
    """Return the application with the job in it: what a worker runs."""
    return _worker(_Store(broker), perform=perform, claim_s=claim_s, fleet_file=fleet_file)


def work(
    broker: str,
    *,
    forks: int,
    perform: Callable[..., JobResult] = pushing.perform,
    claim_s: float = CLAIM_S,
    fleet_file: str | None = None,
) -> None:
    """Do jobs until a signal ends it: SIGTERM and the first Ctrl-C let jobs under way be finished.

    Args:
        broker: Redis, as fleet.toml has it.
        forks: how many jobs at once.
        perform: does one.
        claim_s: so long after its death another worker may do its jobs, in seconds.
        fleet_file: this machine's fleet.toml, where it lies elsewhere than the conductor's.

    Raises:
        BrokerError: Redis is away, or refuses us.

    """
    store = _Store(broker)
    app = _worker(store, perform=perform, claim_s=claim_s, fleet_file=fleet_file)
    try:
        store.redis.ping()
    except store.errors as error:
        raise store.away(error) from error
    # Threads: they share the bundle, what was compressed for other boards, and the limit of the rate.
    options = ["--pool=threads", f"--concurrency={forks}", f"--hostname=push-{os.getpid()}@%h", "--loglevel=WARNING"]
    app.worker_main(["worker", *options, "--without-gossip", "--without-mingle"])


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute
    """Give `python -m celery -A tflotilla.host.rollouts.executors.celery worker` the fleet of $TFLOTILLA_FLEET."""
    if name != "app":
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from tflotilla.host.fleet.inventory.fleet import Fleet

    fleet = Fleet.load()
    return worker_application(fleet.rollouts.broker or "redis://localhost:6379/0", fleet_file=str(fleet.path))


def _worker(store: _Store, *, perform: Callable[..., JobResult], claim_s: float, fleet_file: str | None) -> Celery:
    worker = _Worker(store, perform, claim_s=claim_s, fleet_file=fleet_file)

    def job(task: Any, document: Any, nonce: str) -> None:  # noqa: ANN401 - Celery has no types
        worker.run(task, document, nonce)

    store.app.task(name=TASK, bind=True, ignore_result=True)(job)
    return store.app


def _ticket_key(job: str) -> str:
    return f"tflotilla:ticket:{job}"


def _claim_key(job: str) -> str:
    return f"tflotilla:claim:{job}"


def _results_key(rollout: str) -> str:
    return f"tflotilla:results:{rollout}"


def _progress_key(rollout: str) -> str:
    return f"tflotilla:progress:{rollout}"
