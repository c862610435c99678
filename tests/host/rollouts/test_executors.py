"""What every executor promises, whoever does the jobs: threads, or Celery's workers over a real Redis."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests import redis
from tests.brokers import until
from tests.host.rollouts import fake_jobs
from tflotilla.host.rollouts.executors.celery import CeleryExecutor
from tflotilla.host.rollouts.executors.threads import ThreadExecutor
from tflotilla.shared.contract.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tflotilla.host.rollouts.jobs import Executor, JobProgress, JobResult

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE_S = 60.0
_FORKS = 3


@contextlib.contextmanager
def working(broker: str, log: Path, *, forks: int = _FORKS, claim_s: float = 2.0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker process of fake jobs."""
    command = [sys.executable, "-m", "tests.host.rollouts.fake_jobs", broker, str(forks), str(claim_s)]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def collect(executor: Executor, count: int) -> list[JobResult]:
    """Wait for so many results; fail the test when they never come."""
    found: list[JobResult] = []
    deadline = time.monotonic() + _PATIENCE_S
    while len(found) < count and time.monotonic() < deadline:
        found += executor.results(timeout_s=0.5)
    assert count == len(found)
    return found


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("redis")
    with redis.server(folder) as server, working(server.url, folder / "worker.log"):
        yield server.url


@pytest.fixture(params=["threads", "celery"])
def made(request: pytest.FixtureRequest) -> Iterator[Callable[[], Executor]]:
    """Makes executors for the same jobs."""
    executors: list[Executor] = []

    def make() -> Executor:
        executor: Executor
        if request.param == "threads":
            executor = ThreadExecutor(forks=_FORKS, perform=fake_jobs.perform)
        else:
            executor = CeleryExecutor(request.getfixturevalue("broker"), forks=_FORKS)
        executors.append(executor)
        return executor

    yield make
    for executor in executors:
        executor.close()


@pytest.fixture
def executor(made: Callable[[], Executor]) -> Executor:
    return made()


def test_nothing_is_waited_for_where_nothing_was_begun(executor: Executor) -> None:
    assert ([], [], _FORKS) == (
        list(executor.results(timeout_s=0.0)),
        list(executor.progress()),
        executor.capacity,
    )


def test_every_job_gives_its_result_once(executor: Executor, tmp_path: Path) -> None:
    jobs = [fake_jobs.job(tmp_path, f"good-{number}") for number in range(20)]
    for job in jobs:
        executor.submit(job)

    results = collect(executor, 20)

    assert sorted(job.board for job in jobs) == sorted(result.job.board for result in results)
    assert {result.job for result in results} == set(jobs)
    assert {(None, True, 10, 0.5, "cd" * 32, fake_jobs.SHADOW)} == {
        (each.error, each.changed, each.bytes_sent, each.duration_s, each.before, each.shadow) for each in results
    }
    assert [] == list(executor.results(timeout_s=0.0))


def test_a_push_and_an_undo_of_one_board_are_two_jobs(executor: Executor, tmp_path: Path) -> None:
    executor.submit(fake_jobs.job(tmp_path, "good"))
    executor.submit(fake_jobs.job(tmp_path, "good", kind="undo"))

    assert {"push", "undo"} == {result.job.kind for result in collect(executor, 2)}


def test_a_bug_in_a_job_is_a_result_of_one_line(executor: Executor, tmp_path: Path) -> None:
    executor.submit(fake_jobs.job(tmp_path, "bug"))
    executor.submit(fake_jobs.job(tmp_path, "good"))

    results = {result.job.board: result for result in collect(executor, 2)}

    assert results["good"].error is None
    assert "TflotillaError" == results["bug"].error
    assert "bug: a bug of tflotilla: ZeroDivisionError: of the job\\x1b[31m itself" == results["bug"].detail


def test_a_job_that_is_submitted_again_under_way_is_the_same(executor: Executor, tmp_path: Path) -> None:
    job = fake_jobs.job(tmp_path, "slow")
    executor.submit(job)
    executor.submit(job)
    (tmp_path / "go").touch()

    collect(executor, 1)

    assert 1 == fake_jobs.begun(tmp_path, "slow")


def test_a_job_whose_result_was_fetched_may_be_done_again(executor: Executor, tmp_path: Path) -> None:
    """A later attempt of the same deployment: boards know it again."""
    for _attempt in range(2):
        executor.submit(fake_jobs.job(tmp_path, "good"))
        collect(executor, 1)

    assert 2 == fake_jobs.begun(tmp_path, "good")


def test_no_more_run_at_once_than_there_is_room_for(executor: Executor, tmp_path: Path) -> None:
    boards = [f"slow-{number}" for number in range(_FORKS + 2)]
    for board in boards:
        executor.submit(fake_jobs.job(tmp_path, board))
    until(lambda: sum(fake_jobs.begun(tmp_path, board) for board in boards) >= _FORKS, "the first jobs to begin")

    assert _FORKS == sum(fake_jobs.begun(tmp_path, board) for board in boards)
    assert [] == list(executor.results(timeout_s=0.2))
    (tmp_path / "go").touch()
    collect(executor, len(boards))


def test_progress_is_told_while_a_job_runs(executor: Executor, tmp_path: Path) -> None:
    executor.submit(fake_jobs.job(tmp_path, "slow"))
    told: list[JobProgress] = []

    def hear() -> bool:
        told.extend(executor.progress())
        return bool(told)

    until(hear, "progress to be told")
    (tmp_path / "go").touch()
    collect(executor, 1)

    assert ("slow", "transferring") == (told[0].board, told[0].text)


def test_closing_does_not_wait_and_begins_nothing_more(executor: Executor, tmp_path: Path) -> None:
    boards = [f"slow-{number}" for number in range(_FORKS + 2)]
    for board in boards:
        executor.submit(fake_jobs.job(tmp_path, board))
    until(lambda: sum(fake_jobs.begun(tmp_path, board) for board in boards) == _FORKS, "the first jobs to begin")
    executor.close()
    (tmp_path / "go").touch()

    with pytest.raises(ConflictError, match="nothing more is begun"):
        executor.submit(fake_jobs.job(tmp_path, "good"))
    assert _FORKS == sum(fake_jobs.begun(tmp_path, board) for board in boards)


def test_whoever_comes_after_a_conductor_that_died_gets_the_result(
    made: Callable[[], Executor], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Threads die with their process: what they did is done once more there. Workers do not."""
    job = fake_jobs.job(tmp_path, "slow")
    first = made()
    first.submit(job)
    until(lambda: fake_jobs.begun(tmp_path, "slow") == 1, "the job to begin")
    second = made()
    second.submit(job)
    (tmp_path / "go").touch()

    (result,) = collect(second, 1)

    assert job == result.job
    expected = 2 if "threads" in request.node.name else 1
    assert expected == fake_jobs.begun(tmp_path, "slow")
