"""How a board's deployments ended before the page listened: from the collector's store, and from rollouts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.host.dashboards.web import stories
from tflotilla.host.dashboards.web import board_page
from tflotilla.host.dashboards.web.desks import ReportDesk, RolloutDesk
from tflotilla.host.rollouts.journal import database as journals
from tflotilla.host.telemetry.store import database
from tflotilla.host.telemetry.store.port import Arrival
from tflotilla.shared.contract.deployment import DeploymentState, DeploymentStatus
from tflotilla.shared.contract.messages import Message

if TYPE_CHECKING:
    from pathlib import Path

_NOW = 1_795_000_000.0


def _status(name: str, state: DeploymentState) -> DeploymentStatus:
    return DeploymentStatus(deployment=name, candidate="ab" * 32, title="digits-1.0.0", state=state)


def _arrival(number: int, status: DeploymentStatus) -> Arrival:
    at = _NOW + number
    message = Message(board="pi-1", boot="b-1", seq=number, time=at, bundle=None, body=status)
    return Arrival(
        board="pi-1",
        boot="b-1",
        seq=number,
        channel="deployment",
        time=at,
        at=at,
        bundle=None,
        payload=message.to_bytes(),
    )


def test_what_a_collector_kept_is_part_of_a_boards_history(tmp_path: Path) -> None:
    """Deployments that ended, and those of that board alone."""
    file = tmp_path / "telemetry.db"
    with database.open_store(str(file)) as store:
        store.append(
            [
                _arrival(1, _status("one", DeploymentState.PROBING)),
                _arrival(2, _status("one", DeploymentState.SUCCEEDED)),
                _arrival(3, _status("two", DeploymentState.ROLLED_BACK)),
            ]
        )
    desk = ReportDesk(lambda: database.open_store(str(file)))

    found = asyncio.run(desk.deployments("pi-1"))
    others = asyncio.run(desk.deployments("pi-2"))
    desk.close()

    assert [("one", "succeeded", _NOW + 2), ("two", "rolled_back", _NOW + 3)] == [
        (each["deployment"], each["state"], each["time"]) for each in found
    ]
    assert [] == others


def test_without_a_collector_there_is_no_past_and_no_error() -> None:
    desk = ReportDesk(lambda: None)

    found = asyncio.run(desk.deployments("pi-1"))
    desk.close()

    assert [] == found


def test_rollouts_say_how_a_board_fared_in_them(tmp_path: Path) -> None:
    stories.write_rollouts(tmp_path, ["pi-001", "pi-002", "pi-003", "pi-004", "pi-005"])
    desk = RolloutDesk(
        lambda: journals.open_journal(f"sqlite:///{tmp_path / journals.FILE}", witness=tmp_path / "rollouts.head")
    )

    async def ask() -> list[dict[str, object]]:
        await desk.refresh()
        return await desk.deployments("pi-001")

    found = asyncio.run(ask())
    desk.close()

    assert {("digits-1.0.0", "succeeded"), ("digits-1.9.0", "rolled_back"), ("digits-2.0.0", "succeeded")} == {
        (each["title"], each["state"]) for each in found
    }


def test_a_deployment_that_several_remember_is_told_once_and_the_newest_is_first() -> None:
    told = [board_page.deployment(20.0, _status("one", DeploymentState.SUCCEEDED))]
    older = [
        board_page.deployment(10.0, _status("zero", DeploymentState.SUCCEEDED)),
        board_page.deployment(21.0, _status("one", DeploymentState.SUCCEEDED)),
    ]

    merged = board_page.merged(told, older)

    assert [("one", 20.0), ("zero", 10.0)] == [(each["deployment"], each["time"]) for each in merged]
