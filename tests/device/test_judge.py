"""What is seen of a candidate in its confirm window, held against its bundle's health policy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tflotilla.device.install import Behaved, Misbehaved, Observation, judge
from tflotilla.shared.contract.manifest import HealthPolicy
from tflotilla.shared.pace import Pace


class TestJudge:
    POLICY = HealthPolicy(confirm_window_s=10, max_error_rate=0.01, max_p99_ratio=5.0)
    CHAMPION = Pace(runs=1000, all_runs=4000, p50_ns=1_000_000, p90_ns=1_500_000, p99_ns=2_000_000)
    HEALTHY = Observation(
        results=1000, errors=0, crashes=0, pace=replace(CHAMPION, p99_ns=4_000_000), champion=CHAMPION
    )

    @pytest.mark.parametrize(
        "seen",
        [
            HEALTHY,
            replace(HEALTHY, errors=10),
            replace(HEALTHY, champion=None),
            replace(HEALTHY, pace=None),
            replace(HEALTHY, pace=replace(CHAMPION, p99_ns=10_000_000)),
            # Too few runs for a p99; p90 and p50 are fine.
            replace(HEALTHY, pace=replace(CHAMPION, runs=661, p99_ns=100_000_000)),
            replace(HEALTHY, pace=replace(CHAMPION, runs=63, p90_ns=100_000_000, p99_ns=100_000_000)),
            # Too few runs for anything.
            replace(HEALTHY, pace=Pace(runs=5, all_runs=10, p50_ns=10**9, p90_ns=10**9, p99_ns=10**9)),
            # 26 µs against 1.5 ms: the scheduler, not the model.
            replace(HEALTHY, pace=replace(CHAMPION, p99_ns=1_500_000), champion=replace(CHAMPION, p99_ns=26_000)),
            Observation(results=0, errors=0, crashes=0, pace=None, champion=None),
        ],
    )
    def test_what_keeps_to_the_policy_is_confirmed(self, seen: Observation) -> None:
        assert isinstance(judge(seen, self.POLICY), Behaved)

    @pytest.mark.parametrize(
        ("seen", "reason"),
        [
            (replace(HEALTHY, crashes=1), "its worker crashed once in 10 s"),
            (replace(HEALTHY, crashes=3), "its worker crashed 3 times in 10 s"),
            (replace(HEALTHY, silent_s=7.2), "its worker hangs: not a word from it for 7 s"),
            (replace(HEALTHY, errors=11), "11 of 1011 inferences failed (1.1%); at most 1.0% may"),
            (replace(HEALTHY, results=0, errors=1), "1 of 1 inferences failed (100.0%); at most 1.0% may"),
            (
                replace(HEALTHY, pace=replace(CHAMPION, p99_ns=10_000_001)),
                "p99 latency 10.00 ms against 2.00 ms of the bundle before it; at most 5 times may be",
            ),
            (
                replace(HEALTHY, pace=replace(CHAMPION, runs=64, p90_ns=9_000_000)),
                "p90 latency 9.00 ms against 1.50 ms of the bundle before it; at most 5 times may be",
            ),
            (
                replace(HEALTHY, pace=replace(CHAMPION, runs=1, all_runs=11, p50_ns=8_000_000)),
                "p50 latency 8.00 ms against 1.00 ms of the bundle before it; at most 5 times may be",
            ),
        ],
    )
    def test_what_does_not_is_undone_and_the_reason_names_figure_and_limit(
        self, seen: Observation, reason: str
    ) -> None:
        assert judge(seen, self.POLICY) == Misbehaved(detail=reason)

    def test_without_a_ratio_no_latency_is_too_much(self) -> None:
        policy = replace(self.POLICY, max_p99_ratio=None)

        assert isinstance(judge(replace(self.HEALTHY, pace=replace(self.CHAMPION, p99_ns=10**12)), policy), Behaved)
