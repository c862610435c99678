"""What pushes cost: beside scp over a fast network, as a difference over a slow one, and where there is nothing to do.

Boards are network namespaces with a real sshd and a running agent each (`tests.network`); they share this machine's
processors with us. A push ends where the bundle lies on the board, ready to be admitted: signature, release and every
digest checked. What follows (probe, switch, confirm) takes as long as its health policy says.
"""

from __future__ import annotations

import functools
import random
import resource
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tests import catalogue
from tests.benchmarks import busy, models
from tests.device import running_bundles
from tests.network import fleets
from tflotilla.device.home import Home
from tflotilla.device.store import Store
from tflotilla.host.bundles import signing
from tflotilla.host.bundles.archive import Bundle
from tflotilla.host.fleet import pool, push, sessions
from tflotilla.host.fleet.agents import layers
from tflotilla.host.fleet.lines import ssh
from tflotilla.host.fleet.transfer import deltas
from tflotilla.host.fleet.transfer import files as transfer_files
from tflotilla.shared.contract import layout
from tflotilla.shared.contract.manifest import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tests.network.boards import Board
    from tests.network.fleets import Crew
    from tflotilla.host.fleet.pool import BoardResult

BOARDS = 50
FORKS = 10
BUNDLE_BYTES = 4_000_000
ROUNDS = 3
#: Of scp's time, for the same boards and bytes.
MOST_TIME = 0.8
MOST_CPU_S = 0.025
SLOW_BIT = 1e6
#: Of the time of sending it whole.
MOST_DIFFERENCE = 1 / 8
ENROLLED = 200
MOST_AGAIN_S = 0.3
MOST_AGAIN_BYTES = 8 << 10
_LARGE_BYTES = 1024
_MODEL = "models/imagenet/coral/mobilenet_v2_1.0_224_quant.tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Many:
    """So many boards, so many at once; seconds, medians over the rounds. CPU is this process's, per board."""

    boards: int
    scp_s: float
    push_s: float
    cpu_s: float
    others: busy.Others

    @property
    def ratio(self) -> float:
        """Our time in terms of scp's."""
        return self.push_s / self.scp_s

    @property
    def kept(self) -> bool | None:
        """Whether the promise holds; None where others were too busy to tell."""
        if self.ratio <= MOST_TIME and self.cpu_s <= MOST_CPU_S:
            return True
        return None if self.others.too_busy else False


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow:
    """One model over a slow link: whole, and as its difference to another one; seconds, and bytes on the line."""

    change: str
    whole_s: float
    whole_bytes: int
    difference_s: float
    difference_bytes: int

    @property
    def ratio(self) -> float:
        """The difference's time in terms of the whole's."""
        return self.difference_s / self.whole_s

    @property
    def kept(self) -> bool:
        """Whether the promise holds."""
        return self.ratio <= MOST_DIFFERENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """The same bundle once more, where it serves already."""

    enrolled: int
    #: All boards, `FORKS` at once, divided by their number.
    each_s: float
    #: From connecting to the end, of the median board, while others are served too.
    median_s: float
    most_bytes: int
    others: busy.Others

    @property
    def kept(self) -> bool | None:
        """Whether the promise holds; None where others were too busy to tell."""
        if self.each_s <= MOST_AGAIN_S and self.most_bytes <= MOST_AGAIN_BYTES:
            return True
        return None if self.others.too_busy else False


def measure(folder: Path, *, boards: int = BOARDS) -> tuple[Many, tuple[Slow, ...], Again]:
    """Measure all three on boards of their own below `folder`."""
    with fleets.quiet_host(folder / "host", layers.cache()), fleets.crew(folder, count=boards) as crew:
        return many(crew), slow(crew, folder), again(crew)


def many(crew: Crew) -> Many:
    """Push to every board, in turns with scp."""
    scp_s, push_s, cpu_s = [], [], []
    file = crew.fleet.folder / "model"
    file.write_bytes(random.Random(0).randbytes(BUNDLE_BYTES))  # noqa: S311 - bytes that don't compress
    watch = busy.Watch()
    for number in range(ROUNDS):
        began = time.monotonic()
        _all_done(pool.run(crew.names, functools.partial(_scp, crew, file), forks=FORKS))
        scp_s.append(time.monotonic() - began)
        bundle = crew.bundle(100 + number, padding=BUNDLE_BYTES)
        began, used = time.monotonic(), _cpu_s()
        push.verify(crew.fleet, bundle)
        _all_done(pool.run(crew.names, lambda name, bundle=bundle: stage(crew, name, bundle), forks=FORKS))  # type: ignore[misc]
        push_s.append(time.monotonic() - began)
        cpu_s.append((_cpu_s() - used) / len(crew.names))
    return Many(
        boards=len(crew.names),
        scp_s=statistics.median(scp_s),
        push_s=statistics.median(push_s),
        cpu_s=statistics.median(cpu_s),
        others=watch.others(),
    )


def stage(crew: Crew, name: str, bundle: Bundle) -> int:
    """Push a verified bundle as far as the board's `incoming/`; return the bytes that went out."""
    board = crew.fleet.board(name)
    with ssh.connect(name, board, crew.fleet) as link:
        with sessions.open_session(link, board.install) as session:
            crew.fleet.save_facts(name, session.hello.facts)
            push.preflight(name, crew.fleet, bundle, session.hello)
            if not session.offer(bundle.digest).present:
                missing = session.manifest(bundle.manifest_bytes, bundle.signature or b"")
                transfer_files.send(session, name, bundle, missing, on_bytes=lambda _sent, _total: None)
            session.bye()
        return link.bytes_sent


def slow(crew: Crew, folder: Path) -> tuple[Slow, ...]:
    """Push a model over 1 Mbit/s, then two that are nearly the same."""
    model = models.MOBILENET_V2.read() or (catalogue.ROOT / _MODEL).read_bytes()
    first = _signed(crew, folder / "first", model, 1000)
    crew.net.shape(0, rate_bit=SLOW_BIT)
    whole_s, whole_bytes = _timed(crew, first)
    _serve(crew.net.boards[0], first)
    found = []
    for release, (change, changed) in enumerate(_retrained(model), 1001):
        bundle = _signed(crew, folder / f"changed-{release}", changed, release)
        difference_s, difference_bytes = _timed(crew, bundle)
        found.append(
            Slow(
                change=change,
                whole_s=whole_s,
                whole_bytes=whole_bytes,
                difference_s=difference_s,
                difference_bytes=difference_bytes,
            )
        )
    crew.net.shape(0)
    return tuple(found)


def again(crew: Crew) -> Again:
    """Deploy to some boards in earnest, enrol each of them many times, and deploy to all of those."""
    bundle = crew.bundle(2000)
    served = crew.names[:FORKS]
    _all_done(push.deploy_many(served, crew.fleet, bundle))
    fleet = crew.fleet
    names = []
    for number in range(ENROLLED):
        board = crew.net.boards[number % len(served)]
        names.append(f"again-{number}")
        fleet = fleet.add(names[-1], fleets.entry(board), fleets.known_hosts_line(board))
    watch = busy.Watch()
    began = time.monotonic()
    results = push.deploy_many(names, fleet, bundle, forks=FORKS)
    took_s = time.monotonic() - began
    _all_done(results)
    outcomes = [result.value for result in results if result.value is not None]
    assert not any(outcome.changed for outcome in outcomes)
    return Again(
        enrolled=len(names),
        each_s=took_s / len(names),
        median_s=statistics.median(outcome.duration_s for outcome in outcomes),
        most_bytes=max(outcome.bytes_sent for outcome in outcomes),
        others=watch.others(),
    )


def _all_done(results: Sequence[BoardResult[Any]]) -> None:
    errors = [result.error for result in results if result.error is not None]
    if errors:
        raise errors[0]


def _scp(crew: Crew, file: Path, name: str) -> None:
    board = crew.net.boards[crew.names.index(name)]
    options = ("BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={crew.fleet.known_hosts}")
    command = ["scp", "-q", "-F", "/dev/null", *(word for option in options for word in ("-o", option))]
    target = f"{board.user}@{board.host}:{board.home}/model"
    subprocess.run([*command, "-i", str(board.client_key), "-P", str(board.port), str(file), target], check=True)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _timed(crew: Crew, bundle: Bundle) -> tuple[float, int]:
    began = time.monotonic()
    push.verify(crew.fleet, bundle)
    sent = stage(crew, crew.names[0], bundle)
    return time.monotonic() - began, sent


def _signed(crew: Crew, folder: Path, model: bytes, release: int) -> Bundle:
    running_bundles.write(folder, model=model, changes={"version": f"1.0.{release}", "release": release})
    key = crew.fleet.resolve(crew.fleet.signing.key or "")
    (folder / SIGNATURE).write_bytes(signing.sign((folder / MANIFEST).read_bytes(), key))
    return Bundle.open(folder)


def _serve(board: Board, bundle: Bundle) -> None:
    """Make it the board's current bundle; whether its goldens hold is not what is measured here."""
    store = Store(Home(board.home / layout.USER_HOME))
    store.admit(bundle.digest)
    store.point(bundle.digest, store.current())


def _sizes(stored: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how far weights are from zero, in steps; Coral's files hold uint8 around a zero point, others int8."""
    readings = (stored.astype(np.float64), stored.view(np.int8).astype(np.float64))
    weights = min(readings, key=lambda reading: float(np.std(reading)))
    sizes: NDArray[np.float64] = np.abs(weights - np.median(weights))
    return sizes


def _retrained(model: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the model with one weight in a thousand a step off, and with all of them off by a thousandth, rounded."""
    chance = np.random.default_rng(0)
    few, all_ = np.frombuffer(model, np.uint8).copy(), np.frombuffer(model, np.uint8).copy()
    for at, size in deltas.buffers(model):
        if size >= _LARGE_BYTES:
            steps = chance.choice(np.array([1, 255], np.uint8), size)
            few[at : at + size] += steps * (chance.random(size) < 0.001)
            weights = _sizes(all_[at : at + size])
            # |w| · N(0, 0.001), on top of a rounding error that is anywhere: the step is taken so often.
            all_[at : at + size] += steps * (chance.random(size) < weights * 0.001 * np.sqrt(2 / np.pi))
    return ("0.1 % of the weights, ±1", few.tobytes()), ("all weights, ±0.1 %", all_.tobytes())
