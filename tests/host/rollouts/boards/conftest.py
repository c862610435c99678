"""The boards and fleets that the tests of `fleet` have."""

from __future__ import annotations

from tests.host.fleet.conftest import board, cache, fleet, home, warm
from tests.host.fleet.test_push import agent

__all__ = ["agent", "board", "cache", "fleet", "home", "warm"]
