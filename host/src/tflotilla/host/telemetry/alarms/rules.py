"""The rules of alarms.toml: what may stand there, what it means, and what is wrong with it.

    [alarms.off]                        # any name
    kind = "offline"                    # latency, throttled, temperature, drift, drops, errors
    boards = "room=kitchen"             # a selector; default all
    for = "30s"                         # how long it must hold before it fires; default "0s"
    keep_firing_for = "0s"              # how long it must be gone before it is resolved
    severity = "critical"               # info, warning (default), critical

    [alarms.slow]
    kind = "latency"
    stage = "total"
    percentile = 99
    above_ms = 50
    over = "1m"                         # the time whose latencies are added up

    [webhook]                           # see WebhookConfig

Pure. What it does NOT do: read files, or know which boards a selector picks.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from tflotilla.shared.contract import codec, messages
from tflotilla.shared.contract.errors import ConfigError, ContractError

Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_STAGES: tuple[str, ...] = get_args(messages.Stage)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)?")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 7 * 86400.0
_SHORTEST_SPAN_S = 5.0
_PLACEHOLDER = re.compile(r"\{([a-z_]*)\}")
#: What a webhook's body may speak of; see `webhook.filled`.
PLACEHOLDERS = ("fleet", "board", "rule", "kind", "severity", "state", "figure", "since", "at", "summary")


def _check(*, holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _check_span(over_s: float) -> None:
    _check(holds=_SHORTEST_SPAN_S <= over_s <= 86400, message='over must be between "5s" and "1d"')  # noqa: PLR2004


@dataclass(frozen=True, slots=True, kw_only=True)
class Offline:
    """The board is off: its last will, or its silence, says so."""

    #: Silent for that long; None is three of its windows, and at least 15 seconds.
    silent_after_s: float | None = None
    #: Whether a board that was never heard of breaks it, too.
    never_heard: bool = False

    def __post_init__(self) -> None:
        """Refuse a patience that no board could keep. Raises ValueError."""
        _check(holds=self.silent_after_s is None or self.silent_after_s >= 1, message='silent_after: "1s" or more')


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A percentile of the latencies of some time, added up, is above a bound."""

    above_ms: float
    stage: messages.Stage = "total"
    percentile: float = 99.0
    over_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse figures that can't be. Raises ValueError."""
        _check(holds=self.above_ms > 0, message=f"above_ms must be above 0, not {self.above_ms:g}")
        _check(
            holds=0 < self.percentile <= 100,  # noqa: PLR2004 - per cent
            message=f"percentile must be above 0 and at most 100, not {self.percentile:g}",
        )
        _check_span(self.over_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled:
    """The board is slowed down now, by heat or low voltage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """The board is hotter than that."""

    above_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """What the model answers is another mix than on the data it was calibrated or evaluated with."""

    of: Literal["labels", "confidence"]
    #: Population stability index; 0.1 is "look at it", 0.25 "it changed" in the literature.
    above_psi: float = 0.25
    over_s: float = 600.0

    def __post_init__(self) -> None:
        """Refuse figures that can't be. Raises ValueError."""
        _check(holds=self.above_psi > 0, message=f"above_psi must be above 0, not {self.above_psi:g}")
        _check_span(self.over_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Results or reports were lost: thrown away on the board, or sent and never heard."""

    above: int = 0
    over_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse figures that can't be. Raises ValueError."""
        _check(holds=self.above >= 0, message=f"above must not be negative, it is {self.above}")
        _check_span(self.over_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Inferences fail, or the model doesn't run at all."""

    above_share: float = 0.01
    over_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse figures that can't be. Raises ValueError."""
        _check(
            holds=0 <= self.above_share < 1, message=f"above_share must be 0 or more and below 1: {self.above_share:g}"
        )
        _check_span(self.over_s)


Condition = Offline | Latency | Throttled | Temperature | Drift | Drops | Errors
KINDS: Mapping[str, type[Condition]] = {
    "offline": Offline,
    "latency": Latency,
    "throttled": Throttled,
    "temperature": Temperature,
    "drift": Drift,
    "drops": Drops,
    "errors": Errors,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule; `condition` says what breaks it."""

    name: str
    condition: Condition
    #: A selector.
    boards: str = "all"
    severity: Severity = "warning"
    for_s: float = 0.0
    keep_firing_for_s: float = 0.0

    @property
    def kind(self) -> str:
        """The word for its condition."""
        return next(kind for kind, condition in KINDS.items() if type(self.condition) is condition)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookConfig:
    """Where changes are posted as JSON; files are relative to alarms.toml."""

    url: str | None = None
    #: The URL in a file, where it is a secret.
    url_file: str | None = None
    #: A file whose content is sent as `Authorization: Bearer …`.
    token_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: What is posted; `{board}` and the other placeholders are filled in in every text. None is all there is to say.
    body: Mapping[str, Any] | None = None
    timeout_s: float = 5.0
    #: How often it is tried, waiting twice as long each time.
    tries: int = 6
    #: Less severe alarms are not posted.
    at_least: Severity = "info"

    def __post_init__(self) -> None:
        """Refuse what can't be posted to. Raises ValueError."""
        _check(holds=(self.url is None) != (self.url_file is None), message="give url, or url_file for a secret one")
        _check(
            holds=self.url is None or self.url.startswith(("http://", "https://")),
            message="url must begin with http:// or https://",
        )
        _check(holds=0 < self.timeout_s <= 60, message='timeout must be at most "60s"')  # noqa: PLR2004
        _check(holds=1 <= self.tries <= 20, message=f"tries must be 1..20, not {self.tries}")  # noqa: PLR2004
        for name, value in self.headers.items():
            plain = re.fullmatch(r"[A-Za-z0-9-]+", name) and value.isprintable() and value.isascii()
            _check(holds=bool(plain), message=f"headers: {name!r} can't be sent")
        _check(holds=_is_json(self.body), message="body: it must be JSON: texts, finite numbers, lists, tables")
        for name in sorted(set(_placeholders(self.body)) - set(PLACEHOLDERS)):
            message = f"body: there is no {{{name}}}; there are {', '.join(PLACEHOLDERS)}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """All of alarms.toml."""

    rules: tuple[Rule, ...]
    webhook: WebhookConfig | None = None


#: What holds where there is no alarms.toml: what nobody wants, whatever the model.
DEFAULTS = Rules(
    rules=(
        Rule(name="offline", condition=Offline(), for_s=60.0, severity="critical"),
        Rule(name="errors", condition=Errors(), for_s=30.0, severity="critical"),
        Rule(name="throttled", condition=Throttled(), for_s=60.0),
        Rule(name="drops", condition=Drops()),
        Rule(name="labels", condition=Drift(of="labels"), for_s=60.0, severity="info"),
    )
)


def parse(text: str, where: str) -> Rules:
    """Read alarms.toml.

    Raises:
        ConfigError: one line with the place and what is allowed there.

    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    try:
        _refuse_unknown(document, ("alarms", "webhook"), where)
        tables = document.get("alarms", {})
        if not isinstance(tables, dict) or not tables:
            message = f'{where}: no alarms; each is a table: [alarms.off] with kind = "offline"'
            raise ConfigError(message)
        return Rules(
            rules=tuple(_rule(name, table, f"{where}: alarms.{name}") for name, table in tables.items()),
            webhook=None if "webhook" not in document else _webhook(document["webhook"], f"{where}: webhook"),
        )
    except ContractError as error:
        raise ConfigError(str(error)) from error


def _rule(name: str, table: Any, where: str) -> Rule:  # noqa: ANN401 - TOML
    if not _NAME.fullmatch(name):
        message = f"{where}: a name has letters, digits, '.', '_' and '-', at most 63"
        raise ConfigError(message)
    if not isinstance(table, dict):
        message = f'{where}: an alarm is a table: [alarms.{name}] with kind = "offline"'
        raise ConfigError(message)
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        near = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(KINDS)}"
        said = "kind is missing" if kind is None else f"kind: there is no {str(kind)[:40]!r}"
        message = f"{where}: {said}; {hint}"
        raise ConfigError(message)
    condition = KINDS[kind]
    own = _written(condition)
    shared = _written(_Shared)
    _refuse_unknown(table, ("kind", *shared, *own), where)
    judged = codec.decode(condition, _with_seconds(table, own, where), where, strict=True)
    common = codec.decode(_Shared, _with_seconds(table, shared, where), where, strict=True)
    return Rule(
        name=name,
        condition=judged,
        boards=common.boards,
        severity=common.severity,
        for_s=common.for_s,
        keep_firing_for_s=common.keep_firing_for_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What every rule may say."""

    boards: str = "all"
    severity: Severity = "warning"
    for_s: float = 0.0
    keep_firing_for_s: float = 0.0


def _webhook(table: Any, where: str) -> WebhookConfig:  # noqa: ANN401 - TOML
    if not isinstance(table, dict):
        message = f'{where}: a table: [webhook] with url = "https://…"'
        raise ConfigError(message)
    written = _written(WebhookConfig)
    _refuse_unknown(table, tuple(written), where)
    return codec.decode(WebhookConfig, _with_seconds(table, written, where), where, strict=True)


def _written(kind: type[Any]) -> dict[str, str]:
    """Return what people write → the field: times are written with their unit, `over = "1m"`."""
    return {each.name.removesuffix("_s"): each.name for each in fields(kind)}


def _with_seconds(table: Mapping[str, Any], written: Mapping[str, str], where: str) -> dict[str, Any]:
    return {
        name: _seconds(table[key], f"{where}.{key}") if name.endswith("_s") else table[key]
        for key, name in written.items()
        if key in table
    }


def _seconds(value: Any, where: str) -> float:  # noqa: ANN401 - TOML
    """Read "30s", "5m", "1h", or a bare number of seconds."""
    if type(value) in (int, float) and math.isfinite(value) and 0 <= value <= _LONGEST_S:
        return float(value)
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    seconds = None if found is None else float(found[1]) * _SECONDS[found[2] or "s"]
    if seconds is None or seconds > _LONGEST_S:
        message = f'{where}: write a time like "30s", "5m" or "1h", at most "7d"'
        raise ConfigError(message)
    return seconds


def _refuse_unknown(table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
            message = f"{where}: unknown key {key[:40]!r}; {hint}"
            raise ConfigError(message)


def _is_json(value: Any) -> bool:  # noqa: ANN401 - TOML, which has dates and infinities
    if isinstance(value, Mapping):
        return all(_is_json(each) for each in value.values())
    if isinstance(value, list):
        return all(_is_json(each) for each in value)
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _placeholders(value: Any) -> list[str]:  # noqa: ANN401 - TOML
    if isinstance(value, str):
        return _PLACEHOLDER.findall(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    return [name for each in value for name in _placeholders(each)] if isinstance(value, list) else []
