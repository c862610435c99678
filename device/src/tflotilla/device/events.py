"""Keeps a folder of ten thousand broken images from becoming ten thousand events. Pure; the caller brings the time."""

from __future__ import annotations

from dataclasses import dataclass

PER_MINUTE = 20
_MINUTE_S = 60.0


@dataclass(slots=True)
class EventGate:
    """Admits so many messages a minute; the rest are counted and told with the next minute's first."""

    opened: float = float("-inf")
    admitted: int = 0
    held_back: int = 0

    def admit(self, message: str, *, now: float) -> tuple[str, ...]:
        """Return what is to be told now, in order."""
        if now - self.opened < _MINUTE_S:
            if self.admitted >= PER_MINUTE:
                self.held_back += 1
                return ()
            self.admitted += 1
            return (message,)
        held_back, self.held_back = self.held_back, 0
        self.opened, self.admitted = now, 1
        return (f"{held_back} more complaints were not reported one by one", message) if held_back else (message,)
