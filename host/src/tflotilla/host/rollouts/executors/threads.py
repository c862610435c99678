"""Jobs done by threads of this process, at most `forks` at once: what a rollout uses unless fleet.toml says otherwise.

Rules it keeps: a job that is under way is not begun twice; each result comes once; nothing a job raises is lost, and
nothing it raises ends a thread. Threads are daemons: Ctrl-C must not wait for boards that are off.
What it does NOT do: know what a job is (`perform` does), retry, or outlive its process.
"""

from __future__ import annotations

import collections
import queue
import threading
from typing import TYPE_CHECKING

from tflotilla.host.rollouts import pushing
from tflotilla.shared.contract.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tflotilla.host.rollouts.jobs import Job, JobProgress, JobResult

#: Progress that nobody asks for is forgotten beyond so many.
_MOST_PROGRESS = 10_000


class ThreadExecutor:
    """Implements `jobs.Executor`."""

    def __init__(
        self,
        *,
        forks: int,
        perform: Callable[[Job, Callable[[JobProgress], None]], JobResult] = pushing.perform,
    ) -> None:
        """Start no thread yet: they come with the jobs."""
        self._forks = forks
        self._perform = perform
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[JobResult] = queue.SimpleQueue()
        self._progress: collections.deque[JobProgress] = collections.deque(maxlen=_MOST_PROGRESS)
        #: Submitted, and their results not yet fetched. Only the one thread that uses the executor touches it.
        self._under_way: set[str] = set()
        self._threads = 0
        self._closed = threading.Event()

    @property
    def capacity(self) -> int:
        """How many jobs may be under way."""
        return self._forks

    def submit(self, job: Job) -> None:
        """Begin a job. Raises ConflictError when the executor is closed."""
        if self._closed.is_set():
            message = f"{job.board}: nothing more is begun, the rollout is being left"
            raise ConflictError(message)
        if job.key in self._under_way:
            return
        self._under_way.add(job.key)
        self._waiting.put(job)
        if self._threads < min(self._forks, len(self._under_way)):
            self._threads += 1
            threading.Thread(target=self._serve, name=f"push-{self._threads}", daemon=True).start()

    def results(self, *, timeout_s: float) -> Sequence[JobResult]:
        """Wait until a job is done, at most that long, and return all that are; each result once."""
        found: list[JobResult] = []
        try:
            # What is there already is worth no waiting for more.
            found.append(self._finished.get(timeout=timeout_s) if timeout_s > 0 else self._finished.get_nowait())
            while True:
                found.append(self._finished.get_nowait())
        except queue.Empty:
            pass
        self._under_way -= {result.job.key for result in found}
        return found

    def progress(self) -> Sequence[JobProgress]:
        """Return what was told since this was last asked."""
        found: list[JobProgress] = []
        while self._progress:
            found.append(self._progress.popleft())
        return found

    def close(self) -> None:
        """Begin nothing more. Jobs under way are left to their threads, which end with the process."""
        self._closed.set()
        for _thread in range(self._threads):
            self._waiting.put(None)

    def _serve(self) -> None:
        while (job := self._waiting.get()) is not None and not self._closed.is_set():
            try:
                result = self._perform(job, self._progress.append)
            except Exception as error:  # noqa: BLE001 - a bug must not leave a board without its result
                result = pushing.failed(job, error)
            self._finished.put(result)
