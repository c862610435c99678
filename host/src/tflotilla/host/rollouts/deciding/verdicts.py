"""The verdict on a wave, or on boards by themselves: shares held against success and error, said in one line.

What it does NOT do: hold a board against its limits (`gates` does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tflotilla.host.rollouts.events import GateResult, Judged
from tflotilla.host.rollouts.policy import GATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tflotilla.host.rollouts.policy import Gate

_SHOWN_BOARDS = 3


def of_wave(
    number: int,
    waves: int,
    *,
    judged: Mapping[str, Sequence[GateResult]],
    failed: Mapping[str, str],
    misbehaved: Mapping[str, Sequence[GateResult]],
    success: float,
) -> Judged:
    """Return the verdict on wave `number` (from 0) of `waves`.

    Args:
        number: the wave's index.
        waves: how many there are.
        judged: the results of each board on which the bundle serves.
        failed: boards where the deployment failed, and how.
        misbehaved: boards that were found to break a gate before, and the results that showed it.
        success: the share of boards that must keep every gate.

    """
    deployments = tuple(_failure(board, why) for board, why in failed.items())
    earlier = tuple(result for results in misbehaved.values() for result in results if not result.ok)
    now = tuple(result for results in judged.values() for result in results)
    bad = tuple(board for board, results in judged.items() if not all(result.ok for result in results))
    reached = len(judged) + len(failed) + len(misbehaved)
    good = len(judged) - len(bad)
    share = good / reached if reached else 0.0
    worked = not good or any(_tells(results) for board, results in judged.items() if board not in bad)
    ok = reached > 0 and share >= success and worked
    broken = (*deployments, *earlier, *(result for result in now if not result.ok))
    closest = _closest(result for result in now if result.ok)
    kept = f"wave {number + 1} of {waves}: {good} of {reached} boards keep every gate"
    if not reached:
        said = f"wave {number + 1} of {waves}: not one board was reached"
    elif not worked:
        said = f"{kept}, but not one of them gave a result"
    elif ok:
        said = f"{kept}; closest: {_nearest(closest)}" if _nearest(closest) else kept
        said += f"; but {_listed(broken)}" if broken else ""
    else:
        said = f"{kept} (at least {success:.1%} must): {_listed(broken)}"
    return Judged(
        wave=number,
        ok=ok,
        boards=(*judged, *failed, *misbehaved),
        misbehaved=bad,
        results=(*broken, *closest),
        reason=said,
    )


def of_boards(judged: Mapping[str, Sequence[GateResult]]) -> Judged:
    """Return the verdict on boards by themselves."""
    bad = tuple(board for board, results in judged.items() if not all(result.ok for result in results))
    broken = tuple(result for results in judged.values() for result in results if not result.ok)
    closest = _closest(result for results in judged.values() for result in results if result.ok)
    said = f"{len(judged) - len(bad)} of {len(judged)} boards keep every gate"
    if bad:
        said += f": {_listed(broken)}"
    return Judged(wave=None, ok=not bad, boards=tuple(judged), misbehaved=bad, results=(*broken, *closest), reason=said)


def too_many(number: int, waves: int, *, broken: Sequence[GateResult], bad: int, of: int, error: float) -> str:
    """Say why everything stops: too many boards of a wave failed."""
    share = f"{bad} of {of} boards failed, {bad / of:.1%} (at most {error:.1%} may)"
    return f"wave {number + 1} of {waves}: {share}: {_listed(broken)}"


def _failure(board: str, why: str) -> GateResult:
    return GateResult(gate="deployment", board=board, ok=False, figure=why)


def _tells(results: Sequence[GateResult]) -> bool:
    """Whether a board says anything of the bundle: one that had no input keeps its gates, and proves nothing."""
    errors = [result for result in results if result.gate == "errors"]
    return not errors or any(result.value is not None for result in errors)


def _margin(result: GateResult) -> float:
    """Return how near a figure is to its limit: 1 is at it."""
    if result.value is None or result.limit is None:
        return -1.0
    if result.gate == "agreement":
        return result.limit / result.value if result.value else 1.0
    return result.value / result.limit if result.limit else 0.0


def _closest(results: Iterable[GateResult]) -> tuple[GateResult, ...]:
    best: dict[Gate, GateResult] = {}
    for result in results:
        known = best.get(result.gate)
        if known is None or (_margin(result), known.board) > (_margin(known), result.board):
            best[result.gate] = result
    return tuple(best[gate] for gate in GATES if gate in best)


def _nearest(closest: Sequence[GateResult]) -> str:
    measured = [result for result in closest if result.value is not None]
    if not measured:
        return ""
    nearest = max(measured, key=_margin)
    return f"{nearest.gate}, {nearest.board} {nearest.figure}"


def _listed(broken: Sequence[GateResult]) -> str:
    parts = []
    for gate in GATES:
        results = [result for result in broken if result.gate == gate]
        if results:
            shown = ", ".join(f"{result.board} {result.figure}" for result in results[:_SHOWN_BOARDS])
            more = f" and {len(results) - _SHOWN_BOARDS} more" if len(results) > _SHOWN_BOARDS else ""
            parts.append(f"{gate}: {shown}{more}")
    return "; ".join(parts)
