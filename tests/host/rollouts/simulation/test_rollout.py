"""Seeded fleets: a bad model stops at the canary, a good one reaches all, and a host that dies changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import Literal, get_args

import pytest

from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.events import Halted
from tflotilla.host.rollouts.jobs import Job
from tflotilla.host.rollouts.policy import GateLimits, Policy
from tflotilla.host.rollouts.rollout import BoardPhase, Status
from tflotilla.host.rollouts.simulation.fleet import NEW, OLD, Behaviour, Conditions, World
from tflotilla.host.rollouts.simulation.rollout import Host, plan

Bad = Literal["wrong_labels", "slow", "crashing", "nan"]
RUNS = 100
BROUGHT_BACK_S = 5.0


def names(count: int) -> list[str]:
    return [f"pi-{number:05}" for number in range(count)]


def host(
    count: int,
    *,
    seed: int,
    behaviour: Behaviour = "good",
    kills: float = 0.0,
    faults: float = 0.01,
    broken: float = 0.0,
    off: float = 0.05,
    sizes: str = "3,20%,100%",
    policy: Policy | None = None,
) -> Host:
    boards = names(count)
    away = boards[:: round(1 / off)] if off else []
    conditions = Conditions(seed=seed, behaviour=behaviour, faults=faults, broken=broken)
    planned = plan(boards, off=away, sizes=sizes, policy=policy or Policy())
    return Host(planned, World(boards, conditions, off=away), forks=20, kills=kills, seed=seed)


@pytest.mark.parametrize("behaviour", get_args(Bad))
def test_a_bad_model_reaches_the_canaries_and_nobody_else(behaviour: Bad) -> None:
    """In 100 of 100 seeded runs, and the canaries serve the old one again within 5 s of the verdict."""
    slowest_s = 0.0
    for seed in range(RUNS):
        run = host(60, seed=seed, behaviour=behaviour)
        rollout = run.run()
        canaries = set(rollout.plan.waves[0].boards)
        reached = {switch.board for switch in run.world.switches if switch.bundle == NEW}
        (verdict_at,) = [each.at for each in run.events if isinstance(each.event, Halted)]
        back = {switch.board: switch.at - verdict_at for switch in run.world.switches if switch.bundle == OLD}

        assert Status.ROLLED_BACK is rollout.status
        assert reached <= canaries
        assert reached
        assert reached == set(back)
        assert all(run.world.serving(board) == OLD for board in names(60))
        slowest_s = max(slowest_s, *back.values())
    assert slowest_s <= BROUGHT_BACK_S


def test_a_good_model_reaches_all() -> None:
    for seed in range(RUNS // 4):
        run = host(40, seed=seed)
        rollout = run.run()

        assert Status.SUCCEEDED is rollout.status, rollout.reason
        assert {NEW} == {run.world.serving(board) for board in names(40)}


@pytest.mark.parametrize("behaviour", get_args(Bad))
def test_without_gates_a_bad_model_reaches_all(behaviour: Bad) -> None:
    """So it is the gates that stop it, and nothing in the simulation."""
    blind = GateLimits(
        error_rate=None,
        crashes=None,
        latency_ratio=None,
        memory_ratio=None,
        temperature_c=None,
        labels_psi=None,
        confidence_psi=None,
        agreement=None,
    )
    run = host(20, seed=1, behaviour=behaviour, policy=Policy(gates=blind))

    assert Status.SUCCEEDED is run.run().status
    assert {NEW} == {run.world.serving(board) for board in names(20)}


@pytest.mark.parametrize("seed", range(12))
def test_a_host_that_dies_again_and_again_changes_nothing_in_the_end(seed: int) -> None:
    run = host(40, seed=seed, kills=0.05, faults=0.05)

    rollout = run.run()

    assert run.deaths > 3
    assert Status.SUCCEEDED is rollout.status, rollout.reason
    assert {NEW} == {run.world.serving(board) for board in names(40)}
    assert {1} == set(Counter(board for board, _deployment in run.world.begun).values())
    assert rollout == engine.rebuild(rollout.plan, run.events)


@pytest.mark.parametrize("seed", range(12))
def test_a_host_that_dies_still_stops_a_bad_model_at_the_canaries(seed: int) -> None:
    run = host(40, seed=seed, behaviour="slow", kills=0.1, faults=0.05)

    rollout = run.run()

    assert Status.ROLLED_BACK is rollout.status
    reached = {switch.board for switch in run.world.switches if switch.bundle == NEW}
    assert reached <= set(rollout.plan.waves[0].boards)
    assert {OLD} == {run.world.serving(board) for board in names(40)}


def test_boards_that_were_off_get_it_when_they_come_back() -> None:
    run = host(100, seed=3, off=0.3)

    early = run.run(until_s=1.0)
    away = run.world.away
    rollout = run.run()

    assert Status.RUNNING is early.status
    assert len(away) > 30
    assert Status.SUCCEEDED is rollout.status
    assert {NEW} == {run.world.serving(board) for board in away}


def test_boards_that_never_take_it_are_told_and_the_others_go_on() -> None:
    run = host(200, seed=4, broken=0.03, policy=Policy(error=0.4, success=0.6))

    rollout = run.run()

    failed = {name for name, board in rollout.boards.items() if board.phase is BoardPhase.FAILED}
    assert Status.SUCCEEDED is rollout.status
    assert failed == {name for name in names(200) if run.world.serving(name) == OLD}
    assert failed


def test_the_same_seed_is_the_same_run() -> None:
    one, other = host(50, seed=9, kills=0.02), host(50, seed=9, kills=0.02)
    one.run()
    other.run()

    assert one.events == other.events
    assert one.events


def test_a_board_asked_again_with_an_id_tells_that_ones_story() -> None:
    world = World(["pi-1"], Conditions(seed=1))
    job = Job(
        kind="push",
        rollout="r",
        board="pi-1",
        deployment="d1",
        bundle=NEW,
        bundle_file="x",
        fleet_file="/fleet.toml",
    )

    world.submit(job)
    first, _births = world.advance(world.now + 60)
    world.submit(job)
    second, _births = world.advance(world.now + 60)

    assert first == second
    assert [("pi-1", "d1")] == world.begun


def test_a_rollback_leaves_only_the_bundle_that_it_names() -> None:
    world = World(["pi-1"], Conditions(seed=1))
    job = Job(kind="undo", rollout="r", board="pi-1", deployment="u", bundle=NEW, bundle_file="x", fleet_file="/f")

    world.submit(job)
    world.advance(world.now + 60)

    assert ([], OLD) == (world.switches, world.serving("pi-1"))
