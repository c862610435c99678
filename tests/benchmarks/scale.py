"""How much a rollout to 10,000 boards costs the host: decided, folded and kept, over a fleet that is simulated.

The simulation's own time and memory are in the figures; boards that were off at the beginning, boards that never take
the bundle and one job in a hundred that meets a fault are too.
"""

from __future__ import annotations

import gc
import resource
import time
from dataclasses import dataclass

from tflotilla.host.rollouts.deciding import engine
from tflotilla.host.rollouts.policy import Policy
from tflotilla.host.rollouts.rollout import BoardPhase, Status
from tflotilla.host.rollouts.simulation.fleet import NEW, Conditions, World
from tflotilla.host.rollouts.simulation.rollout import Host, plan

BOARDS = 10_000
FAULTS = 0.01
LIMIT_S = 60.0
LIMIT_MIB = 500.0
_FORKS = 200
_OFF = 100
_BROKEN = 0.002
_MIB_OF_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """One rollout: CPU seconds of this process, the most memory it ever had, and what became of the boards."""

    boards: int
    events: int
    simulated_s: float
    cpu_s: float
    #: Of that, what it takes to go on from the events alone, after a crash.
    rebuild_s: float
    peak_mib: float
    serving: int
    failed: int
    #: Deployments beyond one per board.
    twice: int
    status: str

    @property
    def kept(self) -> bool:
        """Whether the promises hold: it ends well, no board was asked to begin twice, in time and memory."""
        done = self.status == Status.SUCCEEDED.value and self.serving + self.failed == self.boards and not self.twice
        return done and self.cpu_s < LIMIT_S and self.peak_mib < LIMIT_MIB


def measure(boards: int = BOARDS, *, seed: int = 0) -> Scale:
    """Carry one rollout out in waves of 1, 10 %, 50 % and 100 %."""
    gc.collect()
    begin = time.process_time()
    names = [f"pi-{number:05}" for number in range(boards)]
    off = names[:: max(boards // _OFF, 1)]
    world = World(names, Conditions(seed=seed, faults=FAULTS, broken=_BROKEN), off=off)
    host = Host(plan(names, off=off, policy=Policy()), world, forks=_FORKS, seed=seed, tick_s=0.5)
    began_at = world.now
    rollout = host.run()
    middle = time.process_time()
    rebuilt = engine.rebuild(rollout.plan, host.events)
    end = time.process_time()
    if rebuilt != rollout:
        message = "the events tell another rollout than the one that was"
        raise RuntimeError(message)
    return Scale(
        boards=boards,
        events=len(host.events),
        simulated_s=world.now - began_at,
        cpu_s=end - begin,
        rebuild_s=end - middle,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB_OF_KIB,
        serving=sum(world.serving(name) == NEW for name in names),
        failed=sum(board.phase is BoardPhase.FAILED for board in rollout.boards.values()),
        twice=len(world.begun) - len({board for board, _deployment in world.begun}),
        status=rollout.status.value,
    )
