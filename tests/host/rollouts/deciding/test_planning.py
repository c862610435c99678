"""What would happen to a board, by what it answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import facts_made
from tests.device import running_bundles
from tests.host.telemetry import fake_board
from tflotilla.host.models.compatibility import RuntimeVerdict, Verdict
from tflotilla.host.rollouts.deciding import planning
from tflotilla.host.rollouts.plan import PlannedBoard
from tflotilla.host.rollouts.survey import Survey
from tflotilla.shared.contract.errors import BoardError, BusyError, IdentityError, UnreachableError
from tflotilla.shared.contract.manifest import MANIFEST, Manifest
from tflotilla.shared.contract.messages import ServedBundle

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.shared.contract.errors import TflotillaError

NEW = "e" * 64
OLD = ServedBundle(digest="0" * 64, name="tiny", version="1.0.0", release=1)
FINE = Verdict(runtimes=(RuntimeVerdict(runtime=facts_made.TFLITE, reasons=()),), reasons=())
BAD = Verdict(runtimes=(), reasons=("it has 8 MiB of memory, 20 MiB are needed",))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    folder = running_bundles.write(tmp_path, changes={"version": "2.0.0", "release": 2})
    return Manifest.from_bytes((folder / MANIFEST).read_bytes())


def judged(survey: Survey, manifest: Manifest, verdict: Verdict = FINE, seen_s: float | None = None) -> PlannedBoard:
    return planning.judge(
        survey, manifest, NEW, check=lambda _facts: verdict, send_bytes=lambda _now, _before: 1000, seen_s=seen_s
    )


def answered(serving: ServedBundle | None = OLD) -> Survey:
    return Survey(board="pi-1", facts=fake_board.facts(), serving=serving)


def test_a_board_that_can_run_it_and_has_an_older_one_is_ready(manifest: Manifest) -> None:
    planned = judged(answered(), manifest, seen_s=7.5)

    expected = PlannedBoard(
        board="pi-1",
        disposition="ready",
        serving=OLD.digest,
        serving_title="tiny-1.0.0",
        serving_model="tiny",
        send_bytes=1000,
        expected_s=7.5,
    )
    assert expected == planned


def test_a_board_that_serves_it_gets_nothing(manifest: Manifest) -> None:
    there = ServedBundle(digest=NEW, name="tiny", version="2.0.0", release=2)

    planned = judged(answered(there), manifest)

    assert ("current", "serves it already", 0) == (planned.disposition, planned.reason, planned.send_bytes)


def test_a_board_that_is_off_is_queued_even_if_it_served_it_when_last_seen(manifest: Manifest) -> None:
    there = ServedBundle(digest=NEW, name="tiny", version="2.0.0", release=2)
    gone = Survey(board="pi-1", facts=fake_board.facts(), serving=there, error=UnreachableError("pi-1: no answer"))

    assert ("offline", "no answer") == (judged(gone, manifest).disposition, judged(gone, manifest).reason)


def test_a_board_that_was_never_asked_is_judged_later(manifest: Manifest) -> None:
    assert "unknown" == judged(Survey(board="pi-1"), manifest).disposition


def test_a_board_that_can_not_run_it_says_why(manifest: Manifest) -> None:
    planned = judged(answered(), manifest, BAD)

    assert ("incompatible", str(BAD), None) == (planned.disposition, planned.reason, planned.send_bytes)


def test_what_a_board_that_is_off_said_about_itself_counts(manifest: Manifest) -> None:
    gone = Survey(board="pi-1", facts=fake_board.facts(), error=UnreachableError("pi-1: no answer"))

    assert "incompatible" == judged(gone, manifest, BAD).disposition


def test_releases_only_go_up(manifest: Manifest) -> None:
    newer = ServedBundle(digest="1" * 64, name="tiny", version="3.0.0", release=3)

    planned = judged(answered(newer), manifest)

    assert "incompatible" == planned.disposition
    assert "release 2 is not newer than tiny-3.0.0 with release 3 (`tflotilla rollback` goes back)" == planned.reason


def test_another_model_may_have_any_release(manifest: Manifest) -> None:
    other = ServedBundle(digest="1" * 64, name="birds", version="3.0.0", release=30)

    assert "ready" == judged(answered(other), manifest).disposition


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UnreachableError("off"), "offline"),
        (BusyError("deploying"), "offline"),
        (IdentityError("another host key"), "incompatible"),
        (BoardError("no agent"), "incompatible"),
    ],
)
def test_why_a_board_did_not_answer_decides(manifest: Manifest, error: TflotillaError, expected: str) -> None:
    planned = judged(Survey(board="pi-1", error=error), manifest)

    assert (expected, str(error)) == (planned.disposition, planned.reason)
