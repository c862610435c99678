"""A person's words about rollouts as they are typed, also where they make no sense: no board, only a journal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.device import running_bundles
from tests.host.rollouts import made
from tflotilla.host import cli
from tflotilla.host.cli import rollout_words
from tflotilla.host.fleet.inventory.fleet import Fleet
from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import Aborted, Failed, Halted, Judged, Paused, RollbackAsked, SoakBegan, WaveBegan
from tflotilla.host.rollouts.journal import database, register
from tflotilla.host.rollouts.rollout import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tflotilla.host.rollouts.events import Event

NAME = "digits-2.0.0-7f3a"
FAILED = Failed(board="pi-0", error="ProbeError", detail="wrong answers")
#: A rollout that is rolling back, for its canary is off.
ROLLING_BACK = (WaveBegan(wave=0), made.claimed(), made.deployed(), RollbackAsked())


@pytest.fixture
def types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    (tmp_path / "fleet.toml").write_text('name = "greenhouse"\n')

    def typed(*words: str) -> tuple[int, str, str]:
        """Return the exit code of `tflotilla rollout WORDS`, stdout and stderr."""
        monkeypatch.setattr("sys.argv", ["tflotilla", "rollout", *words, "--fleet", str(tmp_path / "fleet.toml")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return typed


@pytest.fixture
def after(tmp_path: Path, types: Callable[..., tuple[int, str, str]]) -> Callable[..., None]:
    del types

    def written(*events: Event) -> None:
        """Write a rollout down of which this has happened."""
        journal = database.of_fleet(Fleet.load(tmp_path / "fleet.toml"))
        journal.create(made.plan(NAME), by="anna@desk", at=1000.0)
        if events:
            journal.append(NAME, events, by="anna@desk", at=1001.0)
        journal.close()

    return written


@pytest.mark.parametrize(
    ("events", "word", "why"),
    [
        (ROLLING_BACK, "pause", "is rolling back, which nothing pauses"),
        (ROLLING_BACK, "approve", "is rolling_back; nothing waits for approval"),
        ((WaveBegan(wave=0), made.claimed(), FAILED, RollbackAsked()), "retry", "is rolling_back"),
        ((WaveBegan(wave=0), made.claimed(), FAILED, Aborted()), "retry", "is aborted"),
        ((Aborted(),), "pause", "is aborted already"),
        ((Paused(),), "pause", "is paused already"),
        ((Aborted(),), "resume", "is aborted"),
        ((), "approve", "wave 1 doesn't wait for approval"),
        ((), "retry", "no board of it failed"),
    ],
)
def test_a_word_that_would_do_nothing_is_refused_and_not_written_down(
    after: Callable[..., None],
    types: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
    events: tuple[Event, ...],
    word: str,
    why: str,
) -> None:
    after(*events)

    code, out, err = types(word)

    assert (11, "") == (code, out)
    assert why in err
    assert 1 == err.count("\n")
    journal = database.of_fleet(Fleet.load(tmp_path / "fleet.toml"))
    assert len(events) == register.load(journal, NAME).events
    journal.close()


@pytest.mark.parametrize(
    ("word", "then"),
    [("pause", f"`tflotilla rollout resume {NAME}` goes on\n"), ("abort", f"`tflotilla rollout rollback {NAME}`")],
)
def test_where_nobody_conducts_a_word_says_what_may_follow(
    after: Callable[..., None], types: Callable[..., tuple[int, str, str]], word: str, then: str
) -> None:
    after()

    code, out, _err = types(word)

    assert 0 == code
    assert then in out
    assert "controller" not in out


def test_a_rollback_of_a_board_that_failed_to_get_it_has_nothing_to_complain_of(
    after: Callable[..., None], types: Callable[..., tuple[int, str, str]]
) -> None:
    after(WaveBegan(wave=0), made.claimed(), FAILED)

    code, out, err = types("rollback")

    assert (0, "") == (code, err)
    assert f"{NAME}  rolled_back" in out


def test_a_status_without_a_gate_shows_no_table_of_gates(
    after: Callable[..., None], types: Callable[..., tuple[int, str, str]]
) -> None:
    judged = Judged(
        wave=0, ok=True, boards=("pi-0",), misbehaved=(), results=(), reason="1 of 1 boards keep every gate"
    )
    after(WaveBegan(wave=0), made.claimed(), made.deployed(), SoakBegan(wave=0, until=1001.0), judged)

    assert "figure" not in types("status")[1]


@pytest.mark.parametrize(
    ("found", "events", "why"),
    [
        (Status.RUNNING, (RollbackAsked(),), " by somebody's word: it is rolling_back"),
        (Status.RUNNING, (Aborted(),), " by somebody's word: it is aborted"),
        (Status.ROLLING_BACK, (RollbackAsked(),), None),
        (Status.RUNNING, (Halted(reason="too hot", undo=False),), ": too hot"),
        (Status.RUNNING, (Paused(),), None),
        (Status.RUNNING, (), None),
    ],
)
def test_whoever_waits_for_a_rollout_learns_that_it_was_stopped(
    found: Status, events: tuple[Event, ...], why: str | None
) -> None:
    rollout = engine.fold_all(engine.begin(made.plan(NAME)), [(event, 1000.0) for event in events])

    assert why == rollout_words.why_stopped(rollout, found=found)


def test_a_slip_in_a_wave_is_told_before_anything_else_is_done(
    types: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """Boards that are off would be waited for otherwise; this bundle's signature is not even looked at."""
    (tmp_path / "fleet.toml").write_text('name = "greenhouse"\n[boards.pi-1]\nhost = "127.0.0.1"\nport = 1\n')
    bundle = running_bundles.write(tmp_path / "bundle")

    code, out, err = types("plan", str(bundle), "all", "--waves", "nobody=1,100%")

    assert (2, "") == (code, out)
    assert "selector 'nobody=1' picks no board" in err
    assert 1 == err.count("\n")
