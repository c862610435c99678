"""`tflotilla rollout resume`, `retry` and `rollback`, and the loop that carries a rollout out while a command runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from tflotilla.host.cli import conducting, interrupts, output, rollout_story, selecting
from tflotilla.host.cli import rollout_options as options
from tflotilla.shared.contract.errors import BusyError, ConflictError, HaltedError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tflotilla.host.cli.rollout_progress import Progress
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.controller import Controller
    from tflotilla.host.rollouts.journal.port import Journal, Recorded
    from tflotilla.host.rollouts.rollout import Rollout, Status

_TICK_S = 0.25
_SOME_FAILED = 1
#: What a person said, and what whoever conducts the rollout then does.
_Word = tuple[str, str]


def resume(
    rollout: rollout_story.Name = None,
    forks: options.Forks = None,
    limit_rate: options.LimitRate = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Go on with a rollout: after a pause, after its command was killed, or once more for boards that were off.

    Fit for cron: what was done is not done again, and it ends when only boards are left that are off.

    Example: tflotilla rollout resume

    Exit codes: 0 it serves wherever it could be reached, 1 single boards failed, 2 there is no such rollout,
    3 fleet.toml, 10 MQTT, 11 somebody else conducts it, or it is over; 14 stopped.
    """
    from tflotilla.host.rollouts.events import Resumed

    with rollout_story.opened(fleet) as (loaded, journal):
        found = rollout_story.found(journal, rollout)
        name = found.plan.rollout
        if found.status.over:
            hint = f"; `tflotilla rollout retry {name}` tries boards that failed" if found.status == "halted" else ""
            reason = f": {found.reason}" if found.reason else ""
            raise ConflictError(f"{name} is {found.status.value}{reason}; there is nothing to go on with{hint}")
        word: _Word | None = None
        if found.status == "paused":
            word = "resume", "goes on"
            rollout_story.say(journal, name, "resume", Resumed())
            if _obeyed(journal, name, word, as_json=as_json):
                return
        else:
            rollout_story.audit(journal, name, "resume")
    conduct(loaded, name, forks=forks, limit_rate=_rate(limit_rate), as_json=as_json, word=word)


def retry(
    rollout: rollout_story.Name = None,
    only: Annotated[
        str | None, typer.Option("--only", metavar="SELECTOR", help="Of the boards that failed, only these.")
    ] = None,
    forks: options.Forks = None,
    limit_rate: options.LimitRate = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Try boards that failed once more; a rollout that halted goes on where it stopped.

    Example: tflotilla rollout retry --only pi-7

    Exit codes: 0 it serves wherever it could be reached, 1 boards failed again, 2 there is no such rollout,
    3 fleet.toml, 10 MQTT, 11 nothing failed, or somebody else conducts it; 14 stopped.
    """
    from tflotilla.host.rollouts.events import Retried
    from tflotilla.host.rollouts.rollout import BoardPhase, Status

    with rollout_story.opened(fleet) as (loaded, journal):
        found = rollout_story.found(journal, rollout)
        name = found.plan.rollout
        if found.status in (Status.ABORTED, Status.ROLLING_BACK):
            ways = {
                Status.ABORTED: "a rollout of its own takes boards up again",
                Status.ROLLING_BACK: "let it end first",
            }
            raise ConflictError(f"{name} is {found.status.value}, so nothing is tried again; {ways[found.status]}")
        picked = set(loaded.select(only)) if only is not None else set(found.boards)
        failed = (BoardPhase.FAILED, BoardPhase.UNDONE, BoardPhase.STUCK)
        boards = tuple(
            board for board, progress in found.boards.items() if progress.phase in failed and board in picked
        )
        if not boards:
            raise ConflictError(f"{name}: no board of it failed{'' if only is None else f' among {only}'}")
        rollout_story.say(journal, name, "retry", Retried(boards=boards))
        word = "retry", "tries them again"
        if _obeyed(journal, name, word, as_json=as_json):
            return
    conduct(loaded, name, forks=forks, limit_rate=_rate(limit_rate), as_json=as_json, word=word)


def rollback(
    rollout: rollout_story.Name = None,
    forks: options.Forks = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Bring every board of a rollout back to what it served before.

    Boards on which another bundle serves by now are left alone; boards that are off are brought back when they come.

    Example: tflotilla rollout rollback birds-2.0.0-7f3a

    Exit codes: 0 every board that was reached went back, 1 some couldn't, 2 usage, 3 fleet.toml, 11 it was rolled back.
    """
    from tflotilla.host.rollouts.deciding import people

    with rollout_story.opened(fleet) as (loaded, journal):
        found = rollout_story.found(journal, rollout)
        name = found.plan.rollout
        rollout_story.say(journal, name, "rollback", people.word(found, "rollback"))
        word = "rollback", "rolls it back"
        if _obeyed(journal, name, word, as_json=as_json):
            return
    conduct(loaded, name, forks=forks, limit_rate=None, as_json=as_json, word=word)


def conduct(
    fleet: Fleet,
    name: str,
    *,
    forks: int | None,
    limit_rate: float | None,
    as_json: bool,
    word: _Word | None = None,
) -> None:
    """Carry one rollout out until it is over, or waits for a person or for boards that are off; then say where it is.

    Raises:
        BusyError: somebody else conducts it, and there is no `word` of a person that they obey.
        HaltedError: its gates stopped it.
        typer.Exit: single boards failed.

    """
    from tflotilla.host.cli import rollout_progress, rollout_words
    from tflotilla.host.rollouts.journal import database, register

    journal = database.of_fleet(fleet, tell=output.note)
    interrupts.take_the_end_for_one()
    try:
        with rollout_progress.shown(as_json=as_json) as say:

            def on_events(after: Rollout, recorded: Sequence[Recorded]) -> None:
                for line in rollout_words.event_lines(recorded, after.plan):
                    say.line(line)

            with conducting.controlled(
                fleet, journal, forks=forks, limit_rate=limit_rate, on_events=on_events, tell=say.line
            ) as controller:
                try:
                    found = _until_it_rests(controller, name, say)
                except KeyboardInterrupt:
                    output.note(f"{name} stands where it is; `tflotilla rollout resume {name}` goes on")
                    raise
        rollout = register.load(journal, name)
    except BusyError as error:
        # A controller may have seen the word before we could begin.
        if word is not None and _obeyed(journal, name, word, as_json=as_json):
            return
        rollout_story.audit(journal, name, "busy", reason=str(error))
        raise
    finally:
        journal.close()
    asked_back = word is not None and word[0] == "rollback"
    _finish(rollout, as_json=as_json, asked_back=asked_back, found=found)


def _until_it_rests(controller: Controller, name: str, say: Progress) -> Status:
    """Return in what state the rollout was found."""
    from tflotilla.host.cli import rollout_words
    from tflotilla.host.rollouts.rollout import BoardPhase

    rollout = controller.conduct(name)
    found = rollout.status
    while controller.conducts(name):
        told = controller.tick(timeout_s=_TICK_S)
        rollout = controller.rollout(name) or rollout
        moving = (BoardPhase.PUSHING, BoardPhase.UNDOING)
        busy = {board for board in rollout.open if rollout.boards[board].phase in moving}
        say.update(rollout_words.headline(rollout, now=time.time()), told, busy=busy)
        if controller.rests(name):
            break
    lost = controller.lost(name)
    if lost is not None:
        raise BusyError(lost)
    return found


def _finish(rollout: Rollout, *, as_json: bool, asked_back: bool, found: Status) -> None:
    from tflotilla.host.cli import rollout_status, rollout_words
    from tflotilla.host.rollouts.rollout import BoardPhase

    rollout_status.show(rollout, as_json=as_json, conductor=None, boards=False)
    stopped = None if asked_back else rollout_words.why_stopped(rollout, found=found)
    if stopped is not None:
        raise HaltedError(f"{rollout.plan.rollout} was stopped{stopped}")
    ours = [each for each in rollout.boards.values() if each.wave is not None and rollout_words.is_ours_to_mend(each)]
    if ours:
        raise InputError(f"{rollout.plan.rollout} can't go on from here: {ours[0].error}: {ours[0].detail}")
    # Asked back, a board that failed is where it should be: on what it served before.
    failed = [
        board
        for board, progress in rollout.boards.items()
        if progress.phase is BoardPhase.STUCK
        or (not asked_back and (progress.phase is BoardPhase.FAILED or progress.misbehaved))
    ]
    if failed:
        what = "can't be brought back" if asked_back else "failed"
        output.complain(f"{len(failed)} of {len(rollout.boards)} boards {what}: {', '.join(failed[:8])}")
        raise typer.Exit(_SOME_FAILED)


def _obeyed(journal: Journal, name: str, word: _Word, *, as_json: bool) -> bool:
    """Say who does what a person just wrote down; False where nobody conducts the rollout, and this command has to."""
    conductor = journal.conductor(name, at=time.time())
    if conductor is None:
        return False
    action, does = word
    if as_json:
        output.emit_json({"rollout": name, "said": action, "conductor": conductor})
    else:
        output.note(f"{name}: {conductor} conducts it and {does}; `tflotilla rollout status {name}` shows it")
    return True


def _rate(text: str | None) -> float | None:
    from tflotilla.host.cli import quantities

    return quantities.bytes_per_second("--limit-rate", text)
