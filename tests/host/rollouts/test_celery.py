"""Celery's workers and Redis when they die, are away, or come back without memory; both are real here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import redis
from tests.brokers import free_port, until
from tests.host.rollouts import fake_jobs
from tests.host.rollouts.test_executors import ROOT, collect, working
from tflotilla.host.rollouts.executors import celery
from tflotilla.host.rollouts.executors.celery import CeleryExecutor
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis.Redis]:
    """A Redis without a worker; each test's jobs are of a rollout of its own."""
    with redis.server(tmp_path_factory.mktemp("redis")) as running:
        yield running


def _unused() -> str:
    return f"redis://:secret@127.0.0.1:{free_port()}/0"


def test_a_job_whose_worker_was_killed_is_done_by_another(shared: redis.Redis, tmp_path: Path) -> None:
    executor = CeleryExecutor(shared.url, forks=5, remind_s=2.0)
    with working(shared.url, tmp_path / "log", claim_s=1.0):
        executor.submit(fake_jobs.job(tmp_path, "dies-once"))
        # That worker may have got this one too, and not begun it yet.
        executor.submit(fake_jobs.job(tmp_path, "slow"))
        until(lambda: fake_jobs.begun(tmp_path, "dies-once") == 1, "the worker to die of it")
    (tmp_path / "go").touch()
    with working(shared.url, tmp_path / "log", claim_s=1.0):
        results = collect(executor, 2)

    assert [None, None] == [result.error for result in results]
    assert 2 == fake_jobs.begun(tmp_path, "dies-once")
    executor.close()


def test_a_job_that_kills_every_worker_is_given_up(shared: redis.Redis, tmp_path: Path) -> None:
    executor = CeleryExecutor(shared.url, forks=5)
    executor.submit(fake_jobs.job(tmp_path, "deadly"))
    for death in range(1, 4):
        with working(shared.url, tmp_path / "log", claim_s=0.5) as worker:

            def dead(worker: subprocess.Popen[bytes] = worker) -> bool:
                # Someone must look, for the job to be handed out again.
                assert [] == list(executor.results(timeout_s=0.1))
                return worker.poll() is not None

            until(dead, f"death {death}")

    (result,) = collect(executor, 1)

    assert ("TflotillaError", "deadly: 3 workers died doing this job; the last words are in their logs") == (
        result.error,
        result.detail,
    )
    assert 3 == fake_jobs.begun(tmp_path, "deadly")
    executor.close()


def test_a_worker_that_is_stopped_finishes_what_it_does(shared: redis.Redis, tmp_path: Path) -> None:
    executor = CeleryExecutor(shared.url, forks=5)
    with working(shared.url, tmp_path / "log") as worker:
        executor.submit(fake_jobs.job(tmp_path, "slow"))
        until(lambda: fake_jobs.begun(tmp_path, "slow") == 1, "the job to begin")
        worker.send_signal(signal.SIGTERM)
        (tmp_path / "go").touch()
        worker.wait(timeout=30)

        collect(executor, 1)

    assert 1 == fake_jobs.begun(tmp_path, "slow")
    executor.close()


def test_a_redis_that_comes_back_without_memory_costs_nothing(tmp_path: Path) -> None:
    with redis.server(tmp_path / "redis") as server, working(server.url, tmp_path / "log", forks=1):
        executor = CeleryExecutor(server.url, forks=5)
        executor.submit(fake_jobs.job(tmp_path, "slow"))
        until(lambda: fake_jobs.begun(tmp_path, "slow") == 1, "the job to begin")
        # This one waits in the queue, which is forgotten.
        executor.submit(fake_jobs.job(tmp_path, "good"))
        server.kill()
        assert [] == list(executor.results(timeout_s=0.1))
        server.start()
        (tmp_path / "go").touch()

        results = collect(executor, 2)

        assert {"slow": None, "good": None} == {result.job.board: result.error for result in results}
        executor.close()


def test_a_job_that_no_worker_takes_is_missed_and_never_done_later(shared: redis.Redis, tmp_path: Path) -> None:
    """Or a bundle would come to a board after everything was stopped."""
    clock = Clock()
    executor = CeleryExecutor(shared.url, forks=5, clock=clock, patience_s=120.0)
    executor.submit(fake_jobs.job(tmp_path, "late"))
    assert [] == list(executor.results(timeout_s=0.0))
    clock.now += 121.0
    assert [] == list(executor.results(timeout_s=0.0))
    clock.now += 3.0
    (result,) = executor.results(timeout_s=0.0)

    assert ("UnreachableError", "late: no worker took the job within 2 minutes; is one running?", False) == (
        result.error,
        result.detail,
        result.begun,
    )
    executor.submit(fake_jobs.job(tmp_path, "good"))
    with working(shared.url, tmp_path / "log", forks=1):
        # The queue is one: the worker has looked at the late one before.
        until(lambda: fake_jobs.begun(tmp_path, "good") == 1, "the next job to begin")
    assert 0 == fake_jobs.begun(tmp_path, "late")
    executor.close()


def test_what_was_withdrawn_is_done_by_nobody(shared: redis.Redis, tmp_path: Path) -> None:
    leaving = CeleryExecutor(shared.url, forks=5)
    leaving.submit(fake_jobs.job(tmp_path, "withdrawn"))
    leaving.close()
    executor = CeleryExecutor(shared.url, forks=5)
    executor.submit(fake_jobs.job(tmp_path, "good"))
    with working(shared.url, tmp_path / "log", forks=1):
        collect(executor, 1)

    assert 0 == fake_jobs.begun(tmp_path, "withdrawn")
    executor.close()


def test_a_message_that_comes_twice_is_done_once(shared: redis.Redis, tmp_path: Path) -> None:
    """Redis gives a message again when it thinks that its worker vanished."""
    executor = CeleryExecutor(shared.url, forks=5)
    job = fake_jobs.job(tmp_path, "slow")
    executor.submit(job)
    pending = executor._pending[job.key]
    executor._store.app.send_task(
        celery.TASK, args=[codec.encode(job), pending.nonce], task_id=job.key, ignore_result=True
    )
    other = fake_jobs.job(tmp_path, "good")
    executor.submit(other)
    with working(shared.url, tmp_path / "log", forks=3):
        until(lambda: fake_jobs.begun(tmp_path, "good") == 1, "the job behind both to begin")
        (tmp_path / "go").touch()
        collect(executor, 2)

    assert 1 == fake_jobs.begun(tmp_path, "slow")
    executor.close()


def test_a_broker_that_is_away_is_one_line_without_the_password(tmp_path: Path) -> None:
    url = _unused()
    executor = CeleryExecutor(url, forks=5)

    with pytest.raises(BrokerError) as caught:
        executor.submit(fake_jobs.job(tmp_path, "good"))

    assert str(caught.value).startswith(f"Redis at {url.replace(':secret@', '')} can't be used: ")
    assert ("refused" in str(caught.value), "secret" in str(caught.value)) == (True, False)


def test_a_broker_that_refuses_us_is_one_line(shared: redis.Redis, tmp_path: Path) -> None:
    url = shared.url.replace(redis.PASSWORD, "not-the-one")

    with pytest.raises(BrokerError, match="invalid username-password pair") as caught:
        CeleryExecutor(url, forks=5).submit(fake_jobs.job(tmp_path, "good"))
    with pytest.raises(BrokerError, match="invalid username-password pair"):
        celery.work(url, forks=1)
    assert "not-the-one" not in str(caught.value)


def test_a_worker_without_its_broker_says_so_and_ends() -> None:
    with pytest.raises(BrokerError, match="can't be used: "):
        celery.work(_unused(), forks=1)


def test_a_broker_that_stays_away_ends_the_wait(tmp_path: Path) -> None:
    clock = Clock()
    with redis.server(tmp_path / "redis") as server:
        executor = CeleryExecutor(server.url, forks=5, clock=clock, sleep=clock.sleep)
        executor.submit(fake_jobs.job(tmp_path, "good"))
    assert [] == list(executor.results(timeout_s=1.0))
    clock.now += 301.0

    with pytest.raises(BrokerError, match="can't be used"):
        executor.results(timeout_s=1.0)


def test_celerys_own_command_finds_the_fleets_broker(shared: redis.Redis, tmp_path: Path) -> None:
    """`python -m celery -A …executors.celery` with $TFLOTILLA_FLEET; the job's fleet is the worker's own."""
    (tmp_path / "fleet.toml").write_text(
        f'name = "greenhouse"\n[rollouts]\nexecutor = "celery"\nbroker = "{shared.url}"\n'
    )
    command = [sys.executable, "-m", "celery", "-A", "tflotilla.host.rollouts.executors.celery", "worker"]
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(
            [*command, "--pool=threads", "--concurrency=1"],
            cwd=ROOT,
            env={**os.environ, "TFLOTILLA_FLEET": str(tmp_path / "fleet.toml")},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            executor = CeleryExecutor(shared.url, forks=5)
            executor.submit(fake_jobs.job(tmp_path, "good"))
            (result,) = collect(executor, 1)
        finally:
            process.kill()

    # The real one is asked: this fleet has no such bundle.
    assert ("ConfigError", True) == (result.error, str(tmp_path / "fleet.toml") in result.detail)
    executor.close()
