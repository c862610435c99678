"""Jobs that touch no board: what one does is said by its board's name, and each writes into its folder that it began.

As a program it is a Celery worker for them: `python -m tests.host.rollouts.fake_jobs BROKER FORKS CLAIM_S`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.host.rollouts import made
from tflotilla.host.rollouts.jobs import Job, JobProgress, JobResult
from tflotilla.shared.contract.deployment import ShadowReport

if TYPE_CHECKING:
    from collections.abc import Callable

SHADOW = ShadowReport(inputs=50, agreed=49, champion_score=0.5, champion_p50_ns=1000)


def job(folder: Path, board: str, **changes: object) -> Job:
    """Return a job; its folder stands where a fleet would."""
    return made.job(board, rollout=f"r-{folder.name}", fleet_file=str(folder), **changes)


def begun(folder: Path, board: str) -> int:
    """Return how often the job of a board was begun."""
    return len(list(folder.glob(f"{board}.began.*")))


def perform(job: Job, tell: Callable[[JobProgress], None]) -> JobResult:
    """Do what the name says: `good…`, `bug`, `slow…` until a file `go` is there, `dies-once`, `deadly`."""
    folder = Path(job.fleet_file)
    (folder / f"{job.board}.began.{os.urandom(4).hex()}").touch()
    tell(JobProgress(board=job.board, text="transferring"))
    if job.board == "bug":
        raise ZeroDivisionError("of the job\x1b[31m\nitself")
    while job.board.startswith("slow") and not (folder / "go").exists():
        time.sleep(0.02)
    if job.board == "deadly" or (job.board == "dies-once" and begun(folder, job.board) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return JobResult(job=job, changed=True, bytes_sent=10, duration_s=0.5, before="cd" * 32, shadow=SHADOW)


def main(broker: str, forks: str, claim_s: str) -> None:
    """Work until a signal comes."""
    from tflotilla.host.rollouts.executors import celery

    celery.work(broker, forks=int(forks), perform=perform, claim_s=float(claim_s))


if __name__ == "__main__":
    main(*sys.argv[1:])
