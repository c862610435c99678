"""Which of the host's runtimes to believe, and how closely boards must reproduce it. Pure.

Every runtime of the host ran the same inputs, with and without XNNPACK: the same model gives slightly different
integers in different kernels (33 steps of 256 were seen for a small ResNet on noise), and grossly wrong ones where a
kernel is older than the model: all zeros, from a runtime that loaded the file without a complaint. So:
- a runtime whose outputs are one number, or not numbers, while another's aren't, is wrong;
- otherwise the greatest group that agrees is believed; when two groups are equally great, nothing says who is right,
  and the user must;
- of many candidate inputs those are kept on which the believed runtimes differ least, so the tolerance can be tight:
  what they still differ by, and one step more for processors not seen here.

What it does NOT do: run anything (`goldens`), judge a board (`shared.inference.goldens`), or know what a detector's
outputs mean (`detector_agreement`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tflotilla.shared.contract.board import RuntimeOffer
from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    #: The output tensors of one run.
    Outputs = tuple[NDArray[Any], ...]
    #: The runs of one runtime, one per candidate input.
    Runs = Sequence[Outputs]

#: Two runtimes agree when, on half of the inputs and on all that are kept, they differ by at most this share of the
#: output's range. Kernels that were right differed by 13 % at most, on noise; wrong ones by 40 % and more.
AGREEMENT_SHARE = 0.15
#: Quantization steps that are always agreement: an output that spans few steps has no share to speak of.
AGREEMENT_LSB = 2
#: How the flaw begins of a runtime that can't be right, even where all others say the same.
NOT_COMPUTED = "its outputs are not"
_LEAST_ABSOLUTE = 1e-4
#: A float runtime on another processor adds in another order.
_FLOAT_MARGIN = 2.0
_GRID_TOLERANCE = 1e-3
_LEAST_GAPS = 4


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Variant:
    """One way the host can run the model."""

    runtime: RuntimeOffer
    #: Whether XNNPACK's kernels ran part of it.
    xnnpack: bool

    def __str__(self) -> str:
        """`ai-edge-litert==2.3.0 with XNNPACK`."""
        return f"{self.runtime} with XNNPACK" if self.xnnpack else str(self.runtime)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The greatest difference of two runtimes, over all outputs."""

    #: In quantization steps, over the integer outputs.
    lsb: int = 0
    #: In the output's own numbers, over the float outputs.
    absolute: float = 0.0
    #: As a share of the range of that output.
    share: float = 0.0
    #: The least intersection over union of two boxes that are taken for the same.
    iou: float = 1.0

    def __or__(self, other: Spread) -> Spread:
        """Return the greater of both, part by part."""
        return Spread(
            lsb=max(self.lsb, other.lsb),
            absolute=max(self.absolute, other.absolute),
            share=max(self.share, other.share),
            iou=min(self.iou, other.iou),
        )

    @property
    def small(self) -> bool:
        """Whether this is the noise of different kernels."""
        return self.share <= AGREEMENT_SHARE or (self.absolute == 0 and self.lsb <= AGREEMENT_LSB)

    def __str__(self) -> str:
        """What a person reads: steps where there are any."""
        if self.lsb and not self.absolute:
            return f"{self.lsb} LSB"
        return f"{self.absolute:.3g}" if not self.lsb else f"{self.lsb} LSB and {self.absolute:.3g}"


class Measure(Protocol):
    """How outputs are compared; numbers one by one (`Elements`), or what they mean."""

    @property
    def may_skip(self) -> bool:
        """Whether inputs on which the believed runtimes contradict each other are left out, not only kept last."""

    def flaw(self, runs: Runs) -> str | None:
        """Say what shows that nothing was computed, if something does."""

    def spread(self, expected: Outputs, actual: Outputs, runs: Runs) -> Spread:
        """Return the greatest difference of one input's outputs; `runs` are all of the expected side."""

    def tolerance(self, spread: Spread, runs: Runs) -> float:
        """Return what float outputs of a board may differ by, where runtimes here differ by `spread`."""

    def tells(self, outputs: Outputs) -> bool:
        """Whether reproducing these outputs proves much; inputs that don't are kept last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What the host's runtimes made of the model."""

    reference: Variant
    #: The inputs that are kept, by their place among the candidates.
    chosen: tuple[int, ...]
    #: How far the believed runtimes differ from the reference on the chosen inputs.
    spread: Spread
    agreeing: tuple[Variant, ...]
    #: Why each other one is not believed.
    refused: Mapping[Variant, str]
    tolerance_lsb: int
    tolerance_absolute: float
    #: A word to the user about goldens that prove little.
    warning: str | None = None

    @property
    def not_reproduced_by(self) -> tuple[RuntimeOffer, ...]:
        """The runtimes that go wrong in every way they can run."""
        agreeing = {variant.runtime for variant in self.agreeing}
        return tuple(sorted({variant.runtime for variant in self.refused} - agreeing))


class Elements:
    """Number by number, as a share of what the output spans."""

    may_skip = False

    def flaw(self, runs: Runs) -> str | None:
        """Outputs that aren't numbers, or one number everywhere."""
        return _flaw(runs)

    def spread(self, expected: Outputs, actual: Outputs, runs: Runs) -> Spread:
        """Return the greatest difference over all outputs."""
        total = Spread()
        for output, (one, other) in enumerate(zip(expected, actual, strict=True)):
            total |= _difference(one, other, _span([run[output] for run in runs]))
        return total

    def tolerance(self, spread: Spread, runs: Runs) -> float:
        """Return more than was seen here, and one step where numbers are steps."""
        return _absolute_tolerance(spread.absolute, runs)

    def tells(self, outputs: Outputs) -> bool:  # noqa: ARG002 - the signature of a Measure
        """Every output does."""
        return True


def judge(
    runs: Mapping[Variant, Runs], *, count: int, reference: str | None = None, measure: Measure | None = None
) -> Agreement:
    """Decide whom to believe and which inputs to keep.

    Args:
        runs: what each variant gave for each candidate input; the first variants are preferred as the reference.
        count: how many inputs to keep.
        reference: name of the runtime to believe, whatever the others say.
        measure: how outputs are compared; number by number by default.

    Raises:
        ModelError: the runtimes contradict each other and nothing says who is right, or the reference computes nothing.

    """
    measure = measure or Elements()
    useless = {variant: flaw for variant in runs if (flaw := measure.flaw(runs[variant]))}
    sound = [variant for variant in runs if variant not in useless]
    warning = None
    if not sound:
        # Every runtime says so, so it may even be true: a detector that sees nothing.
        if any(flaw.startswith(NOT_COMPUTED) for flaw in useless.values()):
            raise ModelError(f"the model computes nothing: {next(iter(useless.values()))}")
        warning = f"{next(iter(useless.values()))}, in every runtime: these goldens prove little; give real data"
        sound, useless = list(useless), {}

    def median(one: Variant, other: Variant) -> Spread:
        return _median(runs[one], runs[other], measure)

    groups = [[other for other in sound if median(variant, other).small] for variant in sound]
    believed = _believed(sound, groups, reference, useless, median)
    group = groups[sound.index(believed)]
    chosen = _most_stable(runs[believed], [runs[v] for v in group], count, measure)
    spreads = {v: _worst(runs[believed], runs[v], chosen, measure) for v in sound}
    agreeing = tuple(v for v in group if spreads[v].small)
    refused = dict(useless)
    refused |= {v: f"differs from {believed} by up to {spreads[v]}" for v in sound if v not in agreeing}
    spread = Spread()
    for variant in agreeing:
        spread |= spreads[variant]
    distinct = len({_bytes(runs[believed][i]) for i in chosen})
    if warning is None and distinct == 1 < len(chosen):
        warning = "all goldens give the same output: they prove little; give real data"
    return Agreement(
        reference=believed,
        chosen=chosen,
        spread=spread,
        agreeing=agreeing,
        refused=refused,
        tolerance_lsb=spread.lsb + 1,
        tolerance_absolute=measure.tolerance(spread, runs[believed]),
        warning=warning,
    )


def _believed(
    sound: Sequence[Variant],
    groups: Sequence[Sequence[Variant]],
    reference: str | None,
    useless: Mapping[Variant, str],
    spread_of: Callable[[Variant, Variant], Spread],
) -> Variant:
    if reference is not None:
        named = [variant for variant in sound if variant.runtime.name == reference]
        if not named:
            flaws = [f"{variant}: {flaw}" for variant, flaw in useless.items() if variant.runtime.name == reference]
            raise ModelError(f"{flaws[0]}, and others compute something" if flaws else f"{reference} did not run it")
        return named[0]
    greatest = max(map(len, groups))
    best = [variant for variant, group in zip(sound, groups, strict=True) if len(group) == greatest]
    stranger = next((variant for variant in best if variant not in groups[sound.index(best[0])]), None)
    if stranger is not None:
        spread = spread_of(best[0], stranger)
        raise ModelError(
            f"{best[0]} and {stranger} disagree by {spread} ({spread.share:.0%} of the output's range) and nothing "
            "says who is right; give real data with --goldens, or name the runtime to believe with --reference"
        )
    return best[0]


def _flaw(runs: Runs) -> str | None:
    """Say what shows that nothing was computed: outputs that aren't numbers, or one number everywhere."""
    values: set[float] = set()
    elements = 0
    for outputs in runs:
        for output in outputs:
            if output.dtype.kind == "f" and not np.isfinite(output).all():
                return f"{NOT_COMPUTED} finite numbers"
            values.update(np.unique(output)[:2].tolist())
            elements += output.size
    if len(values) == 1 and elements > 1:
        return f"all its outputs are {values.pop():g}"
    return None


def _median(expected: Runs, actual: Runs, measure: Measure) -> Spread:
    """Return the difference that half of the inputs don't exceed, by its share."""
    each = sorted((_worst(expected, actual, (i,), measure) for i in range(len(expected))), key=lambda s: s.share)
    return each[(len(each) - 1) // 2]


def _most_stable(believed: Runs, group: Sequence[Runs], count: int, measure: Measure) -> tuple[int, ...]:
    """Return the inputs on which the group differs least, those with an output of their own first.

    Inputs that tell little come after those that tell much, but before those on which the group contradicts itself.
    """
    every = range(len(believed))
    unrest = {i: max(_worst(believed, runs, (i,), measure).share for runs in group) for i in every}
    steady = [i for i in every if unrest[i] <= AGREEMENT_SHARE]
    candidates = steady if steady and measure.may_skip else every
    order = sorted(
        candidates, key=lambda i: (unrest[i] > AGREEMENT_SHARE, not measure.tells(believed[i]), unrest[i], i)
    )
    seen: set[bytes] = set()
    firsts: list[int] = []
    repeats: list[int] = []
    for i in order:
        (repeats if _bytes(believed[i]) in seen else firsts).append(i)
        seen.add(_bytes(believed[i]))
    return tuple(sorted([*firsts, *repeats][:count]))


def _worst(expected: Runs, actual: Runs, indexes: Sequence[int], measure: Measure) -> Spread:
    total = Spread()
    for i in indexes:
        total |= measure.spread(expected[i], actual[i], expected)
    return total


def _difference(expected: NDArray[Any], actual: NDArray[Any], span: float) -> Spread:
    if expected.shape != actual.shape:
        return Spread(absolute=float("inf"), share=1.0)
    if not expected.size:
        return Spread()
    difference = float(np.abs(expected.astype(np.float64) - actual.astype(np.float64)).max())
    share = difference / span if span else float(difference > 0)
    if expected.dtype.kind == "f":
        return Spread(absolute=difference, share=share)
    return Spread(lsb=round(difference), share=share)


def _span(outputs: Sequence[NDArray[Any]]) -> float:
    sized = [output for output in outputs if output.size]
    if not sized:
        return 0.0
    return float(max(o.max() for o in sized)) - float(min(o.min() for o in sized))


def _bytes(outputs: Outputs) -> bytes:
    return b"".join(output.tobytes() for output in outputs)


def _absolute_tolerance(spread: float, runs: Runs) -> float:
    """Return what float outputs may differ by: more than seen here, and one step where they are steps.

    A model of integers with float outputs gives multiples of a step; another processor may round one further. Never
    more than a share of the smallest range: one figure holds for all outputs, coordinates and class numbers alike.
    """
    outputs = [[run[i] for run in runs] for i in range(len(runs[0])) if runs[0][i].dtype.kind == "f"]
    step = max(map(_step, outputs), default=0.0)
    wanted = max(_FLOAT_MARGIN * spread, (spread + step) * (1 + _GRID_TOLERANCE) if step else 0.0)
    ceiling = AGREEMENT_SHARE * min((span for output in outputs if (span := _span(output))), default=0.0)
    return float(f"{max(_LEAST_ABSOLUTE, min(wanted, ceiling)):.6g}")


def _step(outputs: Sequence[NDArray[Any]]) -> float:
    """Return the step of a float output whose numbers are all multiples of it; 0 when they are not, or whole."""
    values = np.unique(np.concatenate([output.ravel() for output in outputs]).astype(np.float64))
    gaps = np.diff(values)
    if len(gaps) < _LEAST_GAPS or (values == np.rint(values)).all():
        # Few values are multiples of anything; whole numbers are indices and counts.
        return 0.0
    step = float(gaps.min())
    multiples = gaps / step
    fits = float(np.abs(multiples - np.rint(multiples)).max()) < _GRID_TOLERANCE * multiples.max()
    return step if fits and multiples.max() < 1 << 16 else 0.0
