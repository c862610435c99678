"""`tflotilla rollout status`, `list` and `audit`: where rollouts stand, and who did what."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tflotilla.host.cli import output, rollout_story, selecting
from tflotilla.shared.contract.errors import VerificationError

if TYPE_CHECKING:
    from tflotilla.host.rollouts.journal.port import Journal
    from tflotilla.host.rollouts.rollout import Rollout

_REDRAW_S = 0.5


def status(
    rollout: rollout_story.Name = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow it until it is over.")] = False,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Show a rollout: waves with their verdicts, every board with its state, the gates with their figures.

    Example: tflotilla rollout status --watch

    Exit codes: 0 shown, 2 there is no such rollout, 3 fleet.toml.
    """
    with rollout_story.opened(fleet) as (_loaded, journal):
        found = rollout_story.found(journal, rollout)
        if watch and not as_json:
            with contextlib.suppress(KeyboardInterrupt):
                found = _follow(journal, found)
        show(found, as_json=as_json, conductor=journal.conductor(found.plan.rollout, at=time.time()), boards=True)


def list_rollouts(fleet: selecting.FleetFile = None, as_json: selecting.Json = False) -> None:
    """Show all rollouts, the newest last.

    Example: tflotilla rollout list

    Exit codes: 0 shown, 3 fleet.toml.
    """
    from tflotilla.host.rollouts.journal import register

    with rollout_story.opened(fleet) as (_loaded, journal):
        found = [register.load(journal, name) for name in journal.rollouts()]
        conductors = {each.plan.rollout: journal.conductor(each.plan.rollout, at=time.time()) for each in found}
    if as_json:
        output.emit_json({"rollouts": [_document(each, conductors[each.plan.rollout]) for each in found]})
        return
    if not found:
        output.note("no rollout yet; `tflotilla rollout start BUNDLE SELECTOR` begins one")
        return
    rows = []
    for each in found:
        plan = each.plan
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(plan.created))
        boards = str(sum(len(wave.boards) for wave in plan.waves))
        rows.append((plan.rollout, begun, plan.by, boards, each.status.value, conductors[plan.rollout] or ""))
    output.emit_table(
        "rollouts", ("rollout", "begun", "by", "boards", "state", "conducted by"), rows, right=("boards",)
    )


def audit(fleet: selecting.FleetFile = None, as_json: selecting.Json = False) -> None:
    """Show who did what, and check that nobody changed the log since: each entry holds the hash of the one before.

    Example: tflotilla rollout audit

    Exit codes: 0 shown and whole, 3 fleet.toml, 8 the log was changed.
    """
    with rollout_story.opened(fleet) as (_loaded, journal):
        entries = tuple(journal.audit_log())
        broken = journal.audit_fault()
    if as_json:
        output.emit_json({"entries": entries, "whole": broken is None, "broken": broken})
    else:
        rows = [
            (
                str(entry.number),
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at)),
                entry.by,
                entry.action,
                entry.rollout or "",
                " ".join(f"{key}={value}" for key, value in sorted(entry.detail.items())),
                entry.digest[:12],
            )
            for entry in entries
        ]
        output.emit_table("audit log", ("number", "when", "who", "did", "rollout", "with", "hash"), rows)
    if broken is not None:
        raise VerificationError(f"the audit log is not what was written: {broken}")
    if not as_json:
        typer.echo(f"{len(entries)} entries, none changed since it was written")


def show(rollout: Rollout, *, as_json: bool, conductor: str | None, boards: bool) -> None:
    """Print where a rollout stands."""
    from tflotilla.host.cli import rollout_words

    if as_json:
        output.emit_json(_document(rollout, conductor))
        return
    by = f"  (conducted by {conductor})" if conductor else ""
    typer.echo(rollout_words.headline(rollout, now=time.time()) + by)
    waves = rollout_words.wave_rows(rollout)
    output.emit_table("waves", ("wave", "boards", "states", "verdict"), waves, right=("boards",))
    if not boards:
        return
    output.emit_table("boards", rollout_words.BOARD_COLUMNS, rollout_words.board_rows(rollout), right=("tries", "sent"))
    if rollout.verdicts and rollout.verdicts[-1].results:
        gates = rollout_words.gate_rows(rollout.verdicts[-1].results)
        output.emit_table("gates of the last verdict", ("", "gate", "board", "figure"), gates)


#: What scripts may rely on; the rest of a rollout's state is its engine's own.
_SHOWN = ("status", "reason", "wave", "phase", "soak_until", "verdicts", "plan")
_SHOWN_OF_BOARDS = (
    *("phase", "wave", "attempts", "deployment", "error", "detail", "again_at", "since", "before", "changed", "shadow"),
    *("judged", "misbehaved", "bytes_sent"),
)


def _document(rollout: Rollout, conductor: str | None) -> dict[str, Any]:
    from tflotilla.shared.contract import codec

    boards = {
        name: {key: getattr(progress, key) for key in _SHOWN_OF_BOARDS}
        for name, progress in rollout.boards.items()
        if progress.wave is not None
    }
    shown = {key: getattr(rollout, key) for key in _SHOWN}
    document: dict[str, Any] = codec.encode({**shown, "approved": sorted(rollout.approved), "boards": boards})
    return {"rollout": rollout.plan.rollout, "conductor": conductor, **document}


def _follow(journal: Journal, rollout: Rollout) -> Rollout:
    from tflotilla.host.cli import rollout_words
    from tflotilla.host.rollouts.deciding import engine

    with output.progress("") as say:
        quiet = not output.notes().is_terminal
        while True:
            if not quiet:
                say(rollout_words.headline(rollout, now=time.time()))
            if rollout.status.over:
                return rollout
            time.sleep(_REDRAW_S)
            recorded = journal.events(rollout.plan.rollout, after=rollout.events)
            rollout = engine.fold_all(rollout, ((each.event, each.at) for each in recorded))
            for line in rollout_words.event_lines(recorded, rollout.plan):
                output.note(line) if not quiet else typer.echo(line)
