"""`tflotilla alarms check`: read the rules, and say what they mean."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tflotilla.host.cli import alarm_rules, output, selecting

if TYPE_CHECKING:
    from tflotilla.host.telemetry.alarms.rules import Condition


def check(
    rules: alarm_rules.RulesFile = None,
    fleet: selecting.FleetFile = None,
    as_json: selecting.Json = False,
) -> None:
    """Check the rules without asking anybody: every key, every figure, every selector.

    Example: tflotilla alarms check

    Exit codes: 0 they can be used, 3 fleet.toml or a rule is wrong.
    """
    from tflotilla.host.fleet.inventory.fleet import Fleet
    from tflotilla.host.telemetry.alarms import webhook

    loaded = alarm_rules.load(Fleet.load(fleet), rules)
    if loaded.rules.webhook is not None:
        webhook.poster(loaded.rules.webhook, folder=loaded.folder)
    boards = loaded.watched.boards
    if as_json:
        output.emit_json(
            {
                "rules_file": None if loaded.path is None else str(loaded.path),
                "rules": [
                    {"name": rule.name, "kind": rule.kind, "severity": rule.severity, "boards": boards[rule.name]}
                    | {"for_s": rule.for_s, "keep_firing_for_s": rule.keep_firing_for_s}
                    | dataclasses.asdict(rule.condition)
                    for rule in loaded.rules.rules
                ],
                "webhook": loaded.rules.webhook is not None,
            }
        )
        return
    output.emit_table(
        str(loaded.path or "rules that hold where there is no alarms.toml"),
        ("rule", "kind", "severity", "boards", "for", "condition"),
        [
            (
                rule.name,
                rule.kind,
                rule.severity,
                str(len(boards[rule.name])),
                f"{rule.for_s:g} s",
                _said(rule.condition),
            )
            for rule in loaded.rules.rules
        ],
        right=("boards", "for"),
    )
    if loaded.path is None:
        output.note(f"there is no {alarm_rules.FILE} beside fleet.toml; these rules hold by themselves")


def _said(condition: Condition) -> str:
    values: dict[str, Any] = dataclasses.asdict(condition)
    return ", ".join(f"{key.removesuffix('_s')}={_value(key, value)}" for key, value in values.items())


def _value(key: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}s" if key.endswith("_s") else f"{value:g}"
    return str(value).lower()
