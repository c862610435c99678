"""amqtt, the broker that needs no installation; the only module that knows it.

It does NOT speak MQTT 5, and it may lose queued messages when a client comes back: `broker.py` prefers mosquitto.
"""

from __future__ import annotations

import hmac
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqtt.broker import Broker
from amqtt.plugins.base import BaseAuthPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class OneUser(BaseAuthPlugin):  # type: ignore[misc] # amqtt ships no types
    """Lets in the one user of the lab."""

    @dataclass
    class Config:
        """Filled by amqtt from the broker's configuration."""

        username: str
        password: str

    async def authenticate(self, *, session: Any) -> bool:  # noqa: ANN401 - amqtt's Session
        """Whether the session's user and password are the lab's."""
        given = f"{session.username}\0{session.password}".encode()
        return hmac.compare_digest(given, f"{self.config.username}\0{self.config.password}".encode())


@asynccontextmanager
async def serving(port: int, *, username: str, password: str) -> AsyncIterator[int]:
    """Run the broker on a loopback port for the time of the block."""
    logging.getLogger("amqtt").setLevel(logging.CRITICAL)
    logging.getLogger("transitions").setLevel(logging.CRITICAL)
    broker = Broker(
        {
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {f"{__name__}.OneUser": {"username": username, "password": password}},
        }
    )
    await broker.start()
    try:
        yield port
    finally:
        await broker.shutdown()
