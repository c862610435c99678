"""A rollout carried out over a real journal, by an executor and boards that do as they are told."""

from __future__ import annotations

import random
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.host.rollouts import made
from tflotilla.host.rollouts.conductor import LEASE_S, Conductor
from tflotilla.host.rollouts.controller import Controller
from tflotilla.host.rollouts.events import Aborted, Paused, RollbackAsked
from tflotilla.host.rollouts.jobs import Job, JobProgress, JobResult
from tflotilla.host.rollouts.journal import database, register, schema
from tflotilla.host.rollouts.policy import GateLimits, Policy
from tflotilla.host.rollouts.rollout import BoardPhase, Status
from tflotilla.host.rollouts.watcher import Silence
from tflotilla.shared.contract.errors import BusyError, ConflictError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.plan import Plan

BLIND = Policy(
    soak_s=10.0,
    baseline_s=0.0,
    shadow=0,
    gates=GateLimits(
        error_rate=None,
        crashes=None,
        latency_ratio=None,
        memory_ratio=None,
        temperature_c=None,
        labels_psi=None,
        confidence_psi=None,
        agreement=None,
    ),
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class FakeExecutor:
    """Ends every job at once, as `answer` says."""

    answer: Callable[[Job], JobResult]
    capacity: int = 10
    done: list[Job] = field(default_factory=list)
    ready: deque[JobResult] = field(default_factory=deque)
    closed: bool = False

    def submit(self, job: Job) -> None:
        self.done.append(job)
        self.ready.append(self.answer(job))

    def results(self, *, timeout_s: float) -> Sequence[JobResult]:
        del timeout_s
        found = tuple(self.ready)
        self.ready.clear()
        return found

    def progress(self) -> Sequence[JobProgress]:
        return ()

    def close(self) -> None:
        self.closed = True


def well(job: Job) -> JobResult:
    return JobResult(job=job, changed=True, bytes_sent=100, duration_s=1.0, before="cd" * 32)


def off(job: Job) -> JobResult:
    return JobResult(job=job, error="UnreachableError", detail=f"{job.board} is off", begun=False)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = database.open_journal(f"sqlite:///{tmp_path / 'rollouts.db'}")
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def begun(journal: Journal, name: str = "digits-2.0.0-7f3a", *, boards: int = 3) -> str:
    from dataclasses import replace

    journal.create(replace(made.plan(name, boards=boards), policy=BLIND), by="anna@desk", at=1000.0)
    return name


def conductor(
    journal: Journal,
    name: str,
    executor: FakeExecutor,
    clock: Clock,
    *,
    holder: str = "anna@elsewhere 1",
    **changes: Any,  # noqa: ANN401 - what a Conductor takes
) -> Conductor:
    return Conductor(
        journal,
        name,
        executor,
        by="anna@desk",
        holder=holder,
        fleet_file="fleet.toml",
        clock=clock,
        random=random.Random(0),  # noqa: S311 - jitter
        **changes,
    )


def controller(journal: Journal, executors: list[FakeExecutor], clock: Clock, **changes: object) -> Controller:
    left = iter(executors)
    arguments = {"executor": lambda: next(left), "fleet_file": "fleet.toml", "clock": clock, **changes}
    return Controller(journal, Silence(), **arguments)  # type: ignore[arg-type]


def until(conducting: Conductor, clock: Clock, condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        conducting.tick((), timeout_s=0.0)
        clock.now += 1.0
    pytest.fail(f"{conducting.rollout.status}, {conducting.rollout.boards}")


def test_a_rollout_goes_wave_by_wave_to_its_end(journal: Journal, clock: Clock) -> None:
    executor = FakeExecutor(well)
    conducting = conductor(journal, begun(journal), executor, clock)

    until(conducting, clock, lambda: conducting.rollout.status.over)

    assert Status.SUCCEEDED is conducting.rollout.status
    assert ["pi-0", "pi-1", "pi-2"] == [job.board for job in executor.done]
    assert conducting.rollout == register.load(journal, conducting.name)


def test_what_is_to_be_done_is_in_the_journal_before_it_is_done(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    seen: list[BoardPhase] = []

    def look(job: Job) -> JobResult:
        seen.append(register.load(journal, name).boards[job.board].phase)
        return well(job)

    conducting = conductor(journal, name, FakeExecutor(look), clock)
    until(conducting, clock, lambda: conducting.rollout.status.over)

    assert [BoardPhase.PUSHING] * 3 == seen


def test_whoever_goes_on_after_a_kill_asks_the_boards_with_the_same_ids(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    first = FakeExecutor(well)
    killed = conductor(journal, name, first, clock)
    killed.tick((), timeout_s=0.0)
    assert 1 == len(first.done)
    clock.now += LEASE_S + 1

    second = FakeExecutor(well)
    conducting = conductor(journal, name, second, clock, holder="bert@elsewhere 2")
    until(conducting, clock, lambda: conducting.rollout.status.over)

    assert Status.SUCCEEDED is conducting.rollout.status
    assert first.done[0].deployment == second.done[0].deployment
    with pytest.raises(ConflictError):
        killed.tick((), timeout_s=0.0)


def test_a_second_conductor_is_told_who_the_first_one_is(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    conducting = conductor(journal, name, FakeExecutor(well), clock)

    with pytest.raises(BusyError, match="anna@elsewhere 1"):
        conductor(journal, name, FakeExecutor(well), clock, holder="bert@elsewhere 2")

    conducting.close()
    conductor(journal, name, FakeExecutor(well), clock, holder="bert@elsewhere 2")


def test_a_word_from_elsewhere_is_obeyed_at_the_next_tick(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    conducting = conductor(journal, name, FakeExecutor(well), clock)

    journal.append(name, [Aborted()], by="bert@phone", at=clock())
    conducting.tick((), timeout_s=0.0)

    assert Status.ABORTED is conducting.rollout.status
    assert conducting.rests


def test_a_word_that_comes_while_events_are_written_is_folded_once(journal: Journal, clock: Clock) -> None:
    name = begun(journal)

    def abort_now(job: Job) -> JobResult:
        journal.append(name, [Aborted()], by="bert@phone", at=clock())
        return well(job)

    conducting = conductor(journal, name, FakeExecutor(abort_now), clock)
    for _ in range(3):
        conducting.tick((), timeout_s=0.0)

    assert conducting.rests
    assert conducting.rollout == register.load(journal, name)
    assert Status.ABORTED is conducting.rollout.status


def test_who_takes_over_a_paused_rollout_leaves_it_paused(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    journal.append(name, [Paused()], by="bert@phone", at=clock())
    executor = FakeExecutor(well)

    conducting = conductor(journal, name, executor, clock)
    conducting.tick((), timeout_s=0.0)

    assert Status.PAUSED is conducting.rollout.status
    assert [] == executor.done


def test_boards_that_are_off_are_waited_for_and_nothing_else(journal: Journal, clock: Clock) -> None:
    executor = FakeExecutor(off)
    conducting = conductor(journal, begun(journal), executor, clock)

    for _ in range(3):
        conducting.tick((), timeout_s=0.0)

    assert conducting.rests
    assert BoardPhase.QUEUED is conducting.rollout.boards["pi-0"].phase
    assert {"pi-0"} == {job.board for job in executor.done}


def test_a_controller_takes_what_nobody_conducts_and_gives_it_back(journal: Journal, clock: Clock) -> None:
    taken, free = begun(journal, "digits-2.0.0-aaaa"), begun(journal, "birds-1.0.0-bbbb")
    conductor(journal, taken, FakeExecutor(well), clock)
    executors = [FakeExecutor(well), FakeExecutor(well)]
    conducting = controller(journal, executors, clock)

    conducting.look_around()

    assert (False, True) == (conducting.conducts(taken), conducting.conducts(free))

    conducting.close()
    assert None is journal.conductor(free, at=clock())


def test_a_controller_goes_on_with_what_was_over_when_a_person_says_so(journal: Journal, clock: Clock) -> None:
    """Whoever said it may have been killed before anything was done."""
    name = begun(journal)
    journal.append(name, [Aborted()], by="anna@desk", at=clock())
    conducting = controller(journal, [FakeExecutor(well)], clock)
    conducting.look_around()
    assert not conducting.conducts(name)

    journal.append(name, [RollbackAsked()], by="bert@phone", at=clock())
    clock.now += 60.0
    conducting.look_around()

    assert conducting.conducts(name)


def test_a_controller_that_lost_a_rollout_says_to_whom(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    conducting = controller(journal, [FakeExecutor(off)], clock)
    conducting.conduct(name)
    assert None is conducting.lost(name)

    clock.now += LEASE_S + 1
    conductor(journal, name, FakeExecutor(off), clock, holder="bert@elsewhere 2")
    conducting.tick(timeout_s=0.0)

    assert not conducting.conducts(name)
    assert f"{name} is conducted by bert@elsewhere 2 now" in str(conducting.lost(name))


def test_a_controller_whose_journal_is_away_lets_go_of_everything(
    journal: Journal, clock: Clock, tmp_path: Path
) -> None:
    begun(journal), begun(journal, "birds-1.0.0-bbbb")
    executors = [FakeExecutor(well), FakeExecutor(well)]
    conducting = controller(journal, executors, clock)
    conducting.look_around()
    shutil.copyfile(tmp_path / "rollouts.db", tmp_path / "another.db")
    (tmp_path / "another.db").replace(tmp_path / "rollouts.db")

    with pytest.raises(InputError):
        conducting.tick(timeout_s=0.0)
    conducting.close()

    assert [True, True] == [executor.closed for executor in executors]


def test_a_host_that_hears_nothing_begins_nothing(journal: Journal, clock: Clock) -> None:
    begun(journal)
    executor = FakeExecutor(well)
    hears = [False]
    conducting = controller(journal, [executor], clock, hears=lambda: hears[0])
    conducting.look_around()

    conducting.tick(timeout_s=0.0)
    assert [] == executor.done

    hears[0] = True
    conducting.tick(timeout_s=0.0)
    assert [] == executor.done, "boards get time to deliver what they kept"

    clock.now += 60.0
    conducting.tick(timeout_s=0.0)
    assert ["pi-0"] == [job.board for job in executor.done]


def test_a_wave_whose_broker_is_away_is_waited_for_until_it_can_be_judged(journal: Journal, clock: Clock) -> None:
    conducting = conductor(journal, begun(journal), FakeExecutor(well), clock)
    until(conducting, clock, lambda: conducting.rollout.phase == "soaking")

    clock.now += 60.0
    conducting.tick((), timeout_s=0.0, deaf=True)
    assert ("soaking", False) == (conducting.rollout.phase, conducting.rests)

    conducting.tick((), timeout_s=0.0)
    assert 1 == len(conducting.rollout.verdicts)


def test_a_rollback_in_the_middle_of_a_soak_does_not_wait_for_a_board_that_is_off(
    journal: Journal, clock: Clock
) -> None:
    name = begun(journal)
    conducting = conductor(
        journal, name, FakeExecutor(lambda job: off(job) if job.kind == "undo" else well(job)), clock
    )
    until(conducting, clock, lambda: conducting.rollout.phase == "soaking")

    journal.append(name, [RollbackAsked()], by="bert@phone", at=clock())
    for _ in range(3):
        conducting.tick((), timeout_s=0.0)

    assert (Status.ROLLING_BACK, True) == (conducting.rollout.status, conducting.rests)


def test_whoever_goes_on_does_not_tell_again_what_happened_before(journal: Journal, clock: Clock) -> None:
    name = begun(journal)
    before = conductor(journal, name, FakeExecutor(well), clock)
    until(before, clock, lambda: before.rollout.phase == "soaking")
    before.close()
    told: list[str] = []

    conductor(
        journal,
        name,
        FakeExecutor(well),
        clock,
        on_events=lambda _rollout, recorded: told.extend(type(each.event).__name__ for each in recorded),
    )

    assert ["Resumed"] == told


def test_a_newer_rollout_takes_the_boards_that_an_older_one_waits_for(journal: Journal, clock: Clock) -> None:
    def answer(job: Job) -> JobResult:
        return off(job) if job.board == "pi-2" else well(job)

    older = begun(journal)
    conducting = conductor(journal, older, FakeExecutor(answer), clock)
    until(conducting, clock, lambda: conducting.rollout.status is Status.CONVERGING)

    newer = made.plan("digits-3.0.0-cccc")
    register.claim(journal, newer, by="anna@desk")

    assert BoardPhase.SUPERSEDED is register.load(journal, older).boards["pi-2"].phase
    assert Status.SUCCEEDED is register.load(journal, older).status or conducting.rests
    assert "digits-3.0.0-cccc" == register.desired(journal)["pi-2"].rollout


def test_two_that_are_at_work_on_one_board_are_not_begun(journal: Journal) -> None:
    older = begun(journal)

    with pytest.raises(BusyError, match=rf"rollout {older} .* is at work on pi-0 and 2 more"):
        register.claim(journal, made.plan("digits-3.0.0-cccc"), by="anna@desk")

    assert (older,) == journal.rollouts()


def test_of_two_that_are_begun_at_once_the_one_that_was_written_down_first_goes_on(
    journal: Journal, tmp_path: Path
) -> None:
    older, newer = made.plan("digits-2.0.0-aaaa"), made.plan("digits-3.0.0-bbbb")

    class Slow(database.DatabaseJournal):
        """A journal in which the other one is written down just after ours, before either looks again."""

        def create(self, plan: Plan, *, by: str, at: float) -> None:
            super().create(plan, by=by, at=at)
            super().create(newer, by=by, at=at)

    slow = Slow(schema.sqlite(tmp_path / "rollouts.db"), file=tmp_path / "rollouts.db")

    register.claim(slow, older, by="anna@desk")

    slow.close()
    assert Status.RUNNING is register.load(journal, older.rollout).status
    with pytest.raises(BusyError, match=older.rollout):
        register.refuse_overlap(journal, newer)
