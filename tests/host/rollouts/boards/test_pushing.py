"""Jobs done on a real agent behind a real sshd, and jobs that can't be done: everything is a result of one line."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.host.fleet.test_push import make_bundle
from tests.host.rollouts import made
from tflotilla.host.fleet import push
from tflotilla.host.rollouts import pushing
from tflotilla.shared.contract.errors import BusyError, UnreachableError
from tflotilla.shared.contract.manifest import SIGNATURE

if TYPE_CHECKING:
    from tests.sshd import Sshd
    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.rollouts.jobs import Job, JobProgress

pytestmark = [pytest.mark.sshd, pytest.mark.fleet]


def _job(fleet: Fleet, bundle: Bundle, *, kind: str = "push", **changes: object) -> Job:
    values = {
        "kind": kind,
        "deployment": f"{bundle.manifest.release:04x}" * 4,
        "bundle": bundle.digest,
        "bundle_file": str(bundle.path.relative_to(fleet.folder)),
        "fleet_file": str(fleet.path),
    }
    return made.job(**({"board": "pi-1"} | values | changes))  # type: ignore[arg-type]


def test_a_push_and_its_undo_may_be_asked_for_again_and_again(agent: Sshd, fleet: Fleet) -> None:
    first, second = make_bundle(fleet, 1), make_bundle(fleet, 2)
    told: list[JobProgress] = []

    begun = pushing.perform(_job(fleet, first), told.append)
    pushed = pushing.perform(_job(fleet, second))
    again = pushing.perform(_job(fleet, second))
    undone = pushing.perform(_job(fleet, second, kind="undo", deployment="ab" * 8))
    undone_again = pushing.perform(_job(fleet, second, kind="undo", deployment="ab" * 8))

    assert [None] * 5 == [each.error for each in (begun, pushed, again, undone, undone_again)]
    assert (True, None) == (begun.changed, begun.before)
    assert (True, first.digest) == (pushed.changed, pushed.before)
    # As a host would hear it that died before it could write down what came of it.
    assert first.digest == again.before
    assert (True, first.digest, "") == (undone.changed, undone.before, undone.detail)
    assert (False, first.digest) == (undone_again.changed, undone_again.before)
    assert "another bundle served already" == undone_again.detail
    status = push.status("pi-1", fleet)
    assert status.serving is not None
    assert first.digest == status.serving.digest
    assert ["transferring", "verifying", "probing"] == [each.text for each in told if each.text][:3]
    assert {("pi-1", first.size_bytes)} <= {(each.board, each.total) for each in told}
    assert agent.home.exists()


def test_a_board_that_is_off_was_asked_for_nothing(board: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    board.stop()

    result = pushing.perform(_job(fleet, bundle))

    assert ("UnreachableError", False, False) == (result.error, result.begun, "\n" in result.detail)


def test_a_bundle_that_is_not_the_planned_one_goes_nowhere(fleet: Fleet) -> None:
    planned, other = make_bundle(fleet, 1), make_bundle(fleet, 2)
    shutil.rmtree(planned.path)
    other.path.rename(planned.path)

    result = pushing.perform(_job(fleet, planned))

    assert ("ConflictError", False) == (result.error, result.begun)
    assert f"is tiny-1.0.2 {other.digest[:12]}, and the rollout's bundle is {planned.digest[:12]}" in result.detail


def test_a_bundle_that_lost_its_signature_goes_nowhere(fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    (bundle.path / SIGNATURE).unlink()

    assert "VerificationError" == pushing.perform(_job(fleet, bundle)).error


def test_what_is_not_there_is_named(fleet: Fleet) -> None:
    bundle = make_bundle(fleet)

    gone = pushing.perform(_job(fleet, bundle, bundle_file="gone.tflb"))
    nowhere = pushing.perform(_job(fleet, bundle, fleet_file="/nowhere/fleet.toml"))
    stranger = pushing.perform(_job(fleet, bundle, board="pi-2"))

    assert ("InputError", f"{fleet.folder}/gone.tflb: there is no such bundle") == (gone.error, gone.detail)
    assert ("ConfigError", True) == (nowhere.error, "no fleet file /nowhere/fleet.toml" in nowhere.detail)
    assert ("UsageError", True) == (stranger.error, "pi-2" in stranger.detail)


def test_a_change_of_the_fleet_is_seen_by_the_next_job(board: Sshd, fleet: Fleet) -> None:
    bundle = make_bundle(fleet)
    board.stop()
    assert "UnreachableError" == pushing.perform(_job(fleet, bundle)).error

    fleet.path.write_text(fleet.path.read_text().replace("pi-1", "pi-9"))
    os.utime(fleet.path, ns=(1, 1))

    assert "UsageError" == pushing.perform(_job(fleet, bundle)).error


def test_only_a_board_that_never_answered_was_surely_asked_for_nothing() -> None:
    off, cut = pushing._Line(), pushing._Line()
    off.used = cut.used = True
    cut.pause(0.0)

    assert not off.asked(UnreachableError("off"))
    assert cut.asked(UnreachableError("cut, and off since"))
    assert off.asked(BusyError("another deployment"))


def test_foreign_words_are_one_line_that_obeys_nothing() -> None:
    said = pushing.one_line("disk\x1b[2J full\r\nrm -rf\u2028 \x00" + "x" * 10_000_000)

    assert said.startswith("disk\\x1b[2J full rm -rf  \\x00xxx")
    assert 1000 == len(said)
    assert said.isprintable()
