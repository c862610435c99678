"""Does one job: connects to its board and deploys the bundle there, or has the board leave it.

Rules it keeps: every error is a result, of one line, with control characters shown instead of obeyed, because boards
choose the words; the bundle is the one the job names by its digest, verified here before a byte is sent. A process
reads fleet and bundle once as long as their files stay as they are, and its pushes share one limit.
What it does NOT do: retry later, or decide anything about the rollout (`engine`).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import push, tuned
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.fleet.lines import throttle
from tflotilla.host.rollouts.jobs import JobProgress, JobResult
from tflotilla.shared.contract import errors
from tflotilla.shared.contract.errors import ConflictError, InputError, TflotillaError, UnreachableError
from tflotilla.shared.contract.manifest import MANIFEST, MODEL, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.host.rollouts.jobs import Job
    from tflotilla.shared.contract.board import BoardFacts
    from tflotilla.shared.contract.deployment import DeploymentStatus

#: A board that says a gigabyte doesn't get it into the journal.
_LONGEST_DETAIL = 1000
_MOST_BUNDLES = 8

_Stamp = tuple[tuple[int, int, int] | None, ...]


def perform(job: Job, tell: Callable[[JobProgress], None] = lambda _progress: None) -> JobResult:
    """Do a job and return what became of it; raises nothing but what ends the process."""
    line = _Line()
    try:
        fleet = _DESK.fleet(Path(job.fleet_file))
        return _push(job, fleet, tell, line) if job.kind == "push" else _undo(job, fleet, tell, line)
    except Exception as error:  # noqa: BLE001 - one bad board never stops the others
        return failed(job, error, begun=line.asked(error))


def failed(job: Job, error: Exception, *, begun: bool = True) -> JobResult:
    """Return the result of a job that raised; what is no TflotillaError is a bug of ours, and says so."""
    if not isinstance(error, TflotillaError):
        error = TflotillaError(f"{job.board}: a bug of tflotilla: {type(error).__name__}: {error}")
    wire = errors.to_wire(error)
    return JobResult(job=job, error=wire["error"], detail=one_line(wire["message"]), begun=begun)


def one_line(text: str) -> str:
    """Make foreign words fit for a line of a terminal, a journal or a log: nothing in them is obeyed."""
    line = " ".join(text[: 2 * _LONGEST_DETAIL].splitlines())
    shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in line)
    return shown if len(shown) <= _LONGEST_DETAIL else shown[: _LONGEST_DETAIL - 1] + "…"


class _Line:
    """Knows whether a board can have been asked for anything."""

    def __init__(self) -> None:
        self.used = False
        self._broke = False

    def pause(self, seconds: float) -> None:
        """Wait for the next attempt: `push` does that only after one that was connected."""
        self._broke = True
        time.sleep(seconds)

    def asked(self, error: Exception) -> bool:
        """Whether it can have been, when it ended in that error."""
        never_connected = isinstance(error, UnreachableError) and not self._broke
        return self.used and not never_connected


def _push(job: Job, fleet: Fleet, tell: Callable[[JobProgress], None], line: _Line) -> JobResult:
    bundle, advise = _DESK.bundle(fleet, job)
    line.used = True

    def on_status(status: DeploymentStatus) -> None:
        text = f"{status.state.value}: {status.detail}" if status.detail else status.state.value
        tell(JobProgress(board=job.board, text=one_line(text)))

    outcome = push.deploy(
        job.board,
        fleet,
        bundle,
        on_status=on_status,
        on_bytes=lambda sent, total: tell(JobProgress(board=job.board, sent=sent, total=total)),
        # Once for all boards of this process.
        verify_locally=False,
        advise=lambda facts: advise(job.board, facts),
        deployment=job.deployment,
        shadow=job.shadow,
        limit=_DESK.limit(job.limit_rate),
        pause=line.pause,
    )
    return JobResult(
        job=job,
        detail=one_line(outcome.tuning),
        changed=outcome.changed,
        bytes_sent=outcome.bytes_sent,
        duration_s=outcome.duration_s,
        before=outcome.before,
        shadow=outcome.shadow,
    )


def _undo(job: Job, fleet: Fleet, tell: Callable[[JobProgress], None], line: _Line) -> JobResult:
    line.used = True
    outcome = push.undo(
        job.board,
        fleet,
        bundle=job.bundle,
        deployment=job.deployment,
        pause=line.pause,
        on_status=lambda status: tell(JobProgress(board=job.board, text=one_line(f"undo: {status.state.value}"))),
    )
    return JobResult(
        job=job,
        detail="" if outcome.changed else "another bundle served already",
        changed=outcome.changed,
        bytes_sent=outcome.bytes_sent,
        duration_s=outcome.duration_s,
        before=outcome.bundle or None,
    )


class _Desk:
    """What the jobs of one process have in common; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fleets: dict[Path, tuple[_Stamp, Fleet]] = {}
        self._bundles: dict[tuple[Path, str], tuple[_Stamp, Bundle, tuple[tuned.Record, ...]]] = {}
        self._limits: dict[float, throttle.Throttle] = {}

    def fleet(self, path: Path) -> Fleet:
        """Return the fleet as its file is now. Raises ConfigError."""
        with self._lock:
            stamp = _stamp(path)
            known = self._fleets.get(path)
            if known is None or known[0] != stamp:
                known = self._fleets[path] = (stamp, Fleet.load(path))
            return known[1]

    def bundle(self, fleet: Fleet, job: Job) -> tuple[Bundle, Callable[[str, BoardFacts], tuned.Advice]]:
        """Return the verified bundle of a job, and who knows by a board's facts how it is to run there.

        Raises:
            VerificationError: unsigned, by a stranger, or edited.
            ConflictError: another bundle lies there now.
            InputError: it can't be read.

        """
        path = fleet.folder / job.bundle_file
        with self._lock:
            signers = fleet.allowed_signers()
            inside = (path / MANIFEST, path / SIGNATURE) if path.is_dir() else (path,)
            stamp = _stamp(fleet.path, signers, *inside)
            known = self._bundles.get((path, job.bundle))
            if known is None or known[0] != stamp:
                opened = Bundle.open(path)
                if opened.digest != job.bundle:
                    message = (
                        f"{path}: is {opened.manifest.title} {opened.digest[:12]}, and the rollout's bundle is "
                        f"{job.bundle[:12]}: the file was replaced; put the planned one back"
                    )
                    raise ConflictError(message)
                push.verify(fleet, opened)
                records = tuned.load(fleet.state, opened.manifest.files[MODEL].sha256, tell=lambda _line: None)
                known = (stamp, opened, records)
                self._bundles.pop((path, job.bundle), None)
                self._bundles[path, job.bundle] = known
                # The oldest belong to rollouts that are over: nothing grows with a controller's age.
                for old in list(self._bundles)[:-_MOST_BUNDLES]:
                    del self._bundles[old]
        records = known[2]

        def advise(name: str, facts: BoardFacts) -> tuned.Advice:
            runtime = fleet.agent_config(name, home="/").inference.runtime
            return tuned.advise(records, facts, name, runtime=runtime)

        return known[1], advise

    def limit(self, rate: float | None) -> throttle.Throttle | None:
        """Return what all pushes of this process at this rate share."""
        if rate is None:
            return None
        with self._lock:
            if rate not in self._limits:
                if not rate > 0:
                    message = f"a limit must be above 0 bytes per second, not {rate}"
                    raise InputError(message)
                self._limits[rate] = throttle.Throttle(rate)
            return self._limits[rate]


def _stamp(*paths: Path) -> _Stamp:
    """Tell a file's state; None for one that is not there, which whoever reads it will complain about."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


_DESK = _Desk()
