"""Runs in Home Assistant's own environment: judges documents by its schemas, and renders templates as it does.

    echo '{"devices": [...], "states": [...], "renderings": [...]}' | <its python> judge.py <folder>

On stdout: the faults found, and each template's text. It imports nothing of tflotilla.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from typing import Any


def _faults(device: dict[str, Any]) -> list[str]:
    import voluptuous as vol  # type: ignore[import-not-found]
    from homeassistant.components.mqtt import discovery, schemas  # type: ignore[import-not-found]

    found: list[str] = []
    try:
        schemas.DEVICE_DISCOVERY_SCHEMA(device)
    except vol.Invalid as error:
        return [f"device: {error}"]
    for name, component in device["components"].items():
        part = dict(component)
        platform = part.pop("platform")
        # As discovery does it: what stands at the device holds for each component.
        part |= {"device": device["device"], "origin": device["origin"]}
        part |= {key: device[key] for key in discovery.SHARED_OPTIONS if key in device and key not in part}
        module = importlib.import_module(f"homeassistant.components.mqtt.{platform}")
        try:
            # This one refuses what it doesn't know; that of discovery would drop it silently.
            module.PLATFORM_SCHEMA_MODERN(part)
            module.DISCOVERY_SCHEMA(part)
        except vol.Invalid as error:
            found.append(f"{name}: {error}")
        found += _of_class(name, platform, part)
    return found


def _of_class(name: str, platform: str, part: dict[str, Any]) -> list[str]:
    """Hold a sensor's unit and state class against its device class; Home Assistant only warns, when it runs."""
    from homeassistant.components.sensor import (  # type: ignore[import-not-found]
        DEVICE_CLASS_STATE_CLASSES,
        DEVICE_CLASS_UNITS,
    )

    if platform != "sensor" or "device_class" not in part:
        return []
    kind = part["device_class"]
    found = []
    if part.get("unit_of_measurement") not in DEVICE_CLASS_UNITS[kind]:
        found.append(f"{name}: unit {part.get('unit_of_measurement')} of {kind}")
    if part.get("state_class") not in DEVICE_CLASS_STATE_CLASSES[kind]:
        found.append(f"{name}: state class {part.get('state_class')} of {kind}")
    return found


def _state_faults(state: dict[str, Any]) -> list[str]:
    import voluptuous as vol
    from homeassistant.components.mqtt.update import MQTT_JSON_UPDATE_SCHEMA  # type: ignore[import-not-found]

    try:
        MQTT_JSON_UPDATE_SCHEMA(state)
    except vol.Invalid as error:
        return [f"update: {error}"]
    return []


def _automation_faults(text: str) -> list[str]:
    import voluptuous as vol
    from homeassistant.components.automation.config import PLATFORM_SCHEMA  # type: ignore[import-not-found]
    from homeassistant.util.yaml import parse_yaml  # type: ignore[import-not-found]

    found = []
    for automation in parse_yaml(text):
        try:
            PLATFORM_SCHEMA(automation)
        except vol.Invalid as error:
            found.append(f"{automation.get('alias')}: {error}")
    return found


async def _judged(asked: dict[str, Any], folder: str) -> dict[str, Any]:
    from homeassistant.core import HomeAssistant  # type: ignore[import-not-found]
    from homeassistant.helpers.template import Template  # type: ignore[import-not-found]

    hass = HomeAssistant(folder)
    rendered = []
    for template, payload in asked.get("renderings", ()):
        made = Template(template, hass)
        if payload is None:
            rendered.append(made.async_render(parse_result=False))
        else:
            rendered.append(made.async_render_with_possible_json_value(payload, "template failed"))
    judged = {
        "faults": [
            *(fault for device in asked.get("devices", ()) for fault in _faults(device)),
            *(fault for state in asked.get("states", ()) for fault in _state_faults(state)),
            *(fault for text in asked.get("automations", ()) for fault in _automation_faults(text)),
        ],
        "rendered": rendered,
    }
    await hass.async_stop(force=True)
    return judged


if __name__ == "__main__":
    json.dump(asyncio.run(_judged(json.load(sys.stdin), sys.argv[1])), sys.stdout)
