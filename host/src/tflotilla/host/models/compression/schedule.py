"""How sparse a model is to be at each training step: pure functions of the step.

    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_1 - t_0))^p        t_0 ≤ t ≤ t_1, every Δt steps

M. Zhu, S. Gupta, "To prune, or not to prune", 2017, with p = 3; the first batch is step 1, as tfmot counts. What it
does NOT do: choose weights (`masks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tflotilla.shared.contract.errors import UsageError

Kind = Literal["polynomial", "constant"]
KINDS: tuple[Kind, ...] = ("polynomial", "constant")
#: Of all steps: the last quarter is left to recover in.
_DEFAULT_END = 0.75
_LONGEST_INTERVAL_STEPS = 100
_DEFAULT_UPDATES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A schedule whose last update falls on `end_step` exactly."""

    kind: Kind
    initial_sparsity: float
    final_sparsity: float
    begin_step: int
    end_step: int
    frequency: int
    power: float = 3.0

    def updates_at(self, step: int) -> bool:
        """Whether masks are chosen anew at this step."""
        return self.begin_step <= step <= self.end_step and (step - self.begin_step) % self.frequency == 0

    def sparsity_at(self, step: int) -> float:
        """Return the share of weights that are to be zero from this step's update on."""
        if self.kind == "constant":
            return self.final_sparsity
        length = self.end_step - self.begin_step
        progress = 1.0 if length == 0 else min(1.0, max(0.0, (step - self.begin_step) / length))
        spread = self.initial_sparsity - self.final_sparsity
        return float(spread * (1 - progress) ** self.power + self.final_sparsity)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleOptions:
    """What a user says about a schedule; what is None is derived from the number of steps."""

    kind: str = "polynomial"
    initial_sparsity: float = 0.5
    final_sparsity: float = 0.9
    begin_step: int = 0
    end_step: int | None = None
    frequency: int | None = None
    power: float = 3.0

    def check(self) -> None:
        """Refuse what no number of steps makes sense of. Raises UsageError."""
        if self.kind not in KINDS:
            raise UsageError(f"--schedule {self.kind!r}: expected {' or '.join(KINDS)}")
        for name, value in (("initial", self.initial_sparsity), ("final", self.final_sparsity)):
            if not 0 <= value < 1:
                raise UsageError(f"--{name}-sparsity {value:g}: expected a share from 0 to below 1, like 0.9 for 90 %")
        if self.kind == "polynomial" and self.initial_sparsity > self.final_sparsity:
            raise UsageError(
                f"--initial-sparsity {self.initial_sparsity:g} is above --final-sparsity {self.final_sparsity:g}; "
                "a schedule only removes weights"
            )
        if self.begin_step < 0:
            raise UsageError(f"--begin-step {self.begin_step}: expected 0 or more")
        if self.end_step is not None and self.end_step < self.begin_step:
            raise UsageError(f"--end-step {self.end_step} is before --begin-step {self.begin_step}")
        if self.frequency is not None and self.frequency < 1:
            raise UsageError(f"--frequency {self.frequency}: expected at least 1 step between two updates")
        if not self.power > 0:
            raise UsageError(f"--power {self.power:g}: expected more than 0")


def plan(options: ScheduleOptions, total_steps: int) -> tuple[Schedule, tuple[str, ...]]:
    """Fit a schedule into `total_steps` steps; return it and what was decided, in sentences.

    The end is moved down onto a step with an update: else the last update would come before the final sparsity.

    Raises:
        UsageError: it begins or ends after the last step.

    """
    options.check()
    if options.begin_step >= total_steps:
        raise UsageError(
            f"--begin-step {options.begin_step} is never reached: training has {total_steps} steps; "
            "give more --epochs, or an earlier step"
        )
    begin, end = options.begin_step, options.end_step
    if end is None:
        end = max(begin, round(total_steps * _DEFAULT_END))
    elif end > total_steps:
        raise UsageError(
            f"--end-step {end} is never reached: training has {total_steps} steps; "
            "give more --epochs, or an earlier step"
        )
    frequency = options.frequency
    if frequency is None:
        frequency = min(_LONGEST_INTERVAL_STEPS, max(1, (end - begin) // _DEFAULT_UPDATES))
    aligned = begin + (end - begin) // frequency * frequency
    if aligned == 0:
        # Step 0 has no batch, so nothing would ever be updated.
        begin = aligned = 1
    notes = []
    if options.end_step is not None and 0 < aligned < end:
        notes.append(f"the schedule ends at step {aligned}: of every {frequency} steps the last one up to {end}")
    made = Schedule(
        kind="constant" if options.kind == "constant" else "polynomial",
        initial_sparsity=options.initial_sparsity,
        final_sparsity=options.final_sparsity,
        begin_step=begin,
        end_step=aligned,
        frequency=frequency,
        power=options.power,
    )
    return made, tuple(notes)
