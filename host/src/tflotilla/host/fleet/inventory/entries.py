"""The tables of fleet.toml as values; `fleet` explains the file. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from tflotilla.host.fleet.selection import selectors

Install = Literal["auto", "user", "system"]
_LOGIN = r"[A-Za-z0-9_.][A-Za-z0-9_.@-]*"
_UNSAFE_IN_HOST = r"[\s\x00-\x1f\x7f'\"`$;&|<>\\]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningConfig:
    """Whose bundles the boards take: paths, relative to fleet.toml."""

    key: str | None = None
    allowed_signers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutConfig:
    """Who does the pushes of rollouts, and who remembers them."""

    #: `threads` of the command itself, or workers of `celery` (`tflotilla rollout worker`), on other machines too.
    executor: Literal["threads", "celery"] = "threads"
    #: Celery's broker: `redis://host:6379/0`.
    broker: str | None = None
    #: `postgresql://user@host/database` where several hosts share it; its password stands in ~/.pgpass. Else a file,
    #: relative to fleet.toml; without one, .tflotilla/rollouts.db.
    journal: str | None = None
    #: How many boards at once.
    forks: int = 10

    def __post_init__(self) -> None:
        """Raise ValueError with what is allowed."""
        if self.executor == "celery" and self.broker is None:
            message = 'executor = "celery" needs a broker = "redis://host:6379/0"'
            raise ValueError(message)
        if self.broker is not None and not self.broker.startswith(("redis://", "rediss://", "redis+socket://")):
            message = "broker must be a Redis: redis://host:6379/0, rediss://… or redis+socket:///path"
            raise ValueError(message)
        if not 1 <= self.forks <= 1000:  # noqa: PLR2004 - connections that one machine still carries
            message = f"forks must be 1..1000, not {self.forks}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """Where what boards report is kept, and for how long: days since it came, or since the span it sums up."""

    #: `postgresql://user@host/database` where several collectors share it; its password stands in ~/.pgpass. Else a
    #: file, relative to fleet.toml; without one, .tflotilla/telemetry.db.
    store: str | None = None
    #: Metrics and predictions as they came.
    raw_days: float = 7.0
    #: Deployments, benchmarks and events.
    report_days: float = 365.0
    minute_days: float = 30.0
    hour_days: float = 365.0
    #: None is for ever.
    day_days: float | None = None
    #: Of the file, when it is one: the oldest messages go first.
    max_mib: float = 10240.0

    def __post_init__(self) -> None:
        """Raise ValueError with what is allowed."""
        for name in ("raw_days", "report_days", "minute_days", "hour_days", "day_days"):
            days = getattr(self, name)
            if days is not None and not 0.01 <= days <= 36500:  # noqa: PLR2004 - a quarter of an hour, a century
                message = f"{name} must be 0.01..36500, not {days:g}"
                raise ValueError(message)
        if not self.max_mib >= 16:  # noqa: PLR2004 - less is only schema and log
            message = f"max_mib must be at least 16, not {self.max_mib:g}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """One board as fleet.toml has it. Port and user may also come from ~/.ssh/config, so None is "not said"."""

    host: str
    port: int | None = None
    user: str | None = None
    #: Private key file; without one, ssh's usual ones and the agent's.
    identity: str | None = None
    #: `[user@]host[:port]` to go through, besides a ProxyJump of ~/.ssh/config; its key must be in ~/.ssh/known_hosts.
    jump: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Where the agent lives: `system` is /var/lib/tflotilla with root and systemd, `user` is ~/.local/share/tflotilla.
    install: Install = "auto"
    #: The board's interpreter, when its `python3` isn't the one to use.
    python: str = "python3"
    #: Parts of agent.toml: tables inference, source, reporting, mqtt.
    agent: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what ssh would take for an option, and ports that don't exist. Raises ValueError."""
        if not is_host(self.host):
            message = f"host {self.host!r} is not a host name or address"
            raise ValueError(message)
        if self.user is not None and not re.fullmatch(_LOGIN, self.user):
            message = f"user {self.user!r} is not a login name"
            raise ValueError(message)
        if self.port is not None and not 0 < self.port < 1 << 16:
            message = f"port must be 1..65535, not {self.port}"
            raise ValueError(message)
        if self.install not in get_args(Install):
            message = f"install must be auto, user or system, not {self.install!r}"
            raise ValueError(message)
        if self.jump is not None and not _is_jump(self.jump):
            message = f"jump {self.jump!r} is not [user@]host[:port]"
            raise ValueError(message)
        for key, value in self.labels.items():
            if not selectors.is_label(key, value):
                message = f"label {key!r} = {value!r}: no selector can pick it; use words without spaces, ',', '!', '='"
                raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEntry:
    """What fleet.toml says of several boards at once; see `groups` for how, and BoardEntry for the single fields."""

    boards: tuple[str, ...] = ()
    selector: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    port: int | None = None
    user: str | None = None
    identity: str | None = None
    jump: str | None = None
    install: Install | None = None
    python: str | None = None
    agent: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what a board's table would be refused for. Raises ValueError."""
        BoardEntry(host="any", port=self.port, user=self.user, labels=self.labels, jump=self.jump)


def is_host(text: str) -> bool:
    """Whether ssh would take it for a host name or address, and nothing else."""
    return bool(text) and not text.startswith("-") and not re.search(_UNSAFE_IN_HOST, text)


def _is_jump(text: str) -> bool:
    found = re.fullmatch(rf"(?:{_LOGIN}@)?(\[[^\]@]+\]|[^@:\[\],/]+)(?::\d{{1,5}})?", text)
    return found is not None and is_host(found[1].strip("[]"))
