"""What the `update` entity shows."""

from __future__ import annotations

import dataclasses

import pytest

from tflotilla.host.dashboards.home_assistant import updates
from tflotilla.host.dashboards.home_assistant.updates import Standing, Wanted
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.messages import ServedBundle

OLD = ServedBundle(digest="aa" * 32, name="digits", version="1.0.0", release=1)
WANTED = Wanted(digest="bb" * 32, title="digits-2.0.0", rollout="digits-2.0.0-7f3a", release=2)


def status(state: DeploymentState, **changes: str) -> DeploymentStatus:
    said = DeploymentStatus(deployment="d", candidate="bb" * 32, title="digits-2.0.0", state=state)
    return dataclasses.replace(said, **changes)  # type: ignore[arg-type]


def shown(**changes: object) -> dict[str, object]:
    standing = dataclasses.replace(Standing(heard=True, serving=OLD), **changes)  # type: ignore[arg-type]
    found = updates.document(standing)
    assert found is not None
    return found


def versions(document: dict[str, object]) -> tuple[object, object]:
    return document["installed_version"], document["latest_version"]


def test_of_a_board_that_never_spoke_nothing_is_said() -> None:
    assert updates.document(Standing(heard=False, wanted=WANTED)) is None


def test_without_rollouts_what_serves_is_the_newest() -> None:
    assert shown() == {
        "installed_version": "digits-1.0.0",
        "latest_version": "digits-1.0.0",
        "title": "digits",
        "in_progress": False,
        "update_percentage": None,
        "release_summary": "",
    }


def test_a_rollout_that_has_not_reached_the_board_is_an_update() -> None:
    document = shown(wanted=WANTED)

    assert versions(document) == ("digits-1.0.0", "digits-2.0.0")
    assert document["in_progress"] is False
    assert document["release_summary"] == "wanted by rollout digits-2.0.0-7f3a"


def test_a_board_that_serves_what_is_wanted_is_up_to_date() -> None:
    serving = ServedBundle(digest=WANTED.digest, name="digits", version="2.0.0", release=2)

    assert versions(shown(serving=serving, wanted=WANTED)) == ("digits-2.0.0", "digits-2.0.0")


def test_a_rollout_that_is_older_than_what_serves_is_no_update() -> None:
    newer = ServedBundle(digest="cc" * 32, name="digits", version="3.0.0", release=3)

    assert versions(shown(serving=newer, wanted=WANTED)) == ("digits-3.0.0", "digits-3.0.0")


def test_what_an_undo_goes_back_to_is_wanted_though_it_is_older() -> None:
    newer = ServedBundle(digest="cc" * 32, name="digits", version="3.0.0", release=3)
    back = dataclasses.replace(WANTED, release=None)

    assert versions(shown(serving=newer, wanted=back)) == ("digits-3.0.0", "digits-2.0.0")


def test_two_bundles_of_one_title_can_be_told_apart() -> None:
    same_title = dataclasses.replace(WANTED, title="digits-1.0.0")

    assert versions(shown(wanted=same_title)) == ("digits-1.0.0", "digits-1.0.0 (bbbbbbbb)")


def test_a_board_on_which_nothing_serves_has_an_update() -> None:
    assert versions(shown(serving=None, wanted=WANTED)) == ("none", "digits-2.0.0")


def test_a_deployment_under_way_shows_how_far_it_is() -> None:
    document = shown(deployment=status(DeploymentState.PROBING, detail="goldens"), wanted=WANTED)

    assert versions(document) == ("digits-1.0.0", "digits-2.0.0")
    assert (document["in_progress"], document["update_percentage"]) == (True, 55)
    assert document["release_summary"] == "probing: goldens"


def test_progress_only_grows_along_a_deployment() -> None:
    order = [state for state in DeploymentState if not state.final]

    assert [updates.PROGRESS[state] for state in order] == sorted(updates.PROGRESS.values())
    assert set(order) == set(updates.PROGRESS)


@pytest.mark.parametrize(
    ("state", "words"),
    [(DeploymentState.ROLLED_BACK, "rolled back: too slow"), (DeploymentState.REJECTED, "rejected: too slow")],
)
def test_an_update_that_was_tried_and_undone_says_why(state: DeploymentState, words: str) -> None:
    document = shown(deployment=status(state, detail="too slow"), wanted=WANTED)

    assert document["in_progress"] is False
    assert document["release_summary"] == f"wanted by rollout digits-2.0.0-7f3a; {words}"


def test_long_words_are_cut_where_home_assistant_would() -> None:
    document = shown(deployment=status(DeploymentState.PROBING, detail="x" * 1000))

    assert len(str(document["release_summary"])) == 255
