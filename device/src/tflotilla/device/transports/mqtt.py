"""The transport port over MQTT, by paho: the only module that imports it.

Rules it keeps:
- MQTT 5 first; 3.1.1 at once when a broker refuses 5, hangs up on it, or falls silent (`protocol = "auto"`). Only 5
  tells an ACL denial apart from success, so a new connection tries 5 again, unless 5 costs a long silence each time;
- one paho client per connection, thrown away with it: nothing is queued inside paho and nothing is sent twice by it;
- paho's thread only posts to the event loop; what happened is decided there.

What it does NOT do: keep messages (the outbox does), or decide what to send.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from tflotilla.device.backoff import Backoff
from tflotilla.device.transports import (
    MAX_IN_FLIGHT,
    NOBODY,
    Connected,
    Happening,
    Lost,
    Publication,
    Received,
    Settled,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.shared.contract.agent_config import MqttConfig

_LOG = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 10.0
#: amqtt neither answers nor hangs up on MQTT 5; a broker across a slow link must not be taken for one.
_SILENCE_S = 3.0
_FAREWELL_TIMEOUT_S = 2.0
_QOS = 1
_FAILURE = 0x80
#: After so long a connection was a good one: the next failure waits the shortest time again.
_GOOD_CONNECTION_S = 10.0
_SHORT_LIFE_S = 60.0
_TWIN_AFTER = 3
_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_UNSUPPORTED_PROTOCOL = "Unsupported protocol version"
_PERSON_NEEDED = frozenset({"Bad user name or password", "Not authorized", "Banned", "Client identifier not valid"})
_HOPELESS = frozenset({"Packet too large", "Payload format invalid", "Topic name invalid"})


class _Attempt:
    """One paho client, from its connect to its end; lives on the event loop, posts come from paho's thread."""

    def __init__(self, client: paho.Client) -> None:
        loop = asyncio.get_running_loop()
        self.client = client
        #: None when the broker welcomed us, else why not.
        self.welcome: asyncio.Future[Lost | None] = loop.create_future()
        self.gone: asyncio.Future[str] = loop.create_future()
        self.tokens: dict[int, int] = {}
        self.limits = Connected(protocol="")
        self.farewell: tuple[int, asyncio.Future[None]] | None = None


class MqttTransport:
    """A client that is always coming back. `client_id` must be this board's alone: brokers throw out doubles."""

    def __init__(
        self,
        config: MqttConfig,
        *,
        client_id: str,
        will: Publication,
        subscriptions: tuple[str, ...],
        backoff: Backoff | None = None,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._will = will
        self._subscriptions = subscriptions
        self._backoff = backoff or Backoff(first_s=0.5, limit_s=30.0)
        self._tell: Callable[[Happening], None] = lambda _: None
        self._attempt: _Attempt | None = None
        self._task: asyncio.Task[None] | None = None
        self._silent_on_5 = False
        self._short_lives = 0

    @property
    def _where(self) -> str:
        return f"broker {self._config.host}:{self._config.port}"

    def start(self, tell: Callable[[Happening], None]) -> None:
        """Begin connecting."""
        self._tell = tell
        self._task = asyncio.create_task(self._keep_connected())

    def publish(self, publication: Publication, token: int = NOBODY) -> bool:
        """Send at QoS 1."""
        attempt = self._attempt
        if attempt is None or len(attempt.tokens) > attempt.limits.max_in_flight:
            return False
        info = attempt.client.publish(publication.topic, publication.payload, qos=_QOS, retain=publication.retain)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            return False
        attempt.tokens[info.mid] = token
        return True

    async def stop(self, farewell: Publication) -> None:
        """Publish `farewell`, wait shortly for its confirmation, and disconnect."""
        attempt = self._attempt
        if attempt is not None:
            info = attempt.client.publish(farewell.topic, farewell.payload, qos=_QOS, retain=farewell.retain)
            if info.rc == paho.MQTT_ERR_SUCCESS:
                said: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                attempt.farewell = (info.mid, said)
                await asyncio.wait((said, attempt.gone), timeout=_FAREWELL_TIMEOUT_S, return_when="FIRST_COMPLETED")
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep_connected(self) -> None:
        while True:
            began = asyncio.get_running_loop().time()
            lost = await self._connect_once()
            if asyncio.get_running_loop().time() - began > _GOOD_CONNECTION_S:
                self._backoff.reset()
            self._tell(lost)
            await asyncio.sleep(self._backoff.next_s())

    async def _connect_once(self) -> Lost:
        """Try the protocols in order; return why there is no connection any more."""
        reasons: list[Lost] = []
        for protocol in self._protocols():
            try:
                attempt = self._prepare(protocol)
            except OSError as error:
                return Lost(reason=str(error), refused=True)
            try:
                failure, try_another = await self._welcome(attempt, protocol)
                if failure is None:
                    return await self._serve(attempt, protocol)
                reasons.append(failure)
                if not try_another:
                    break
            finally:
                self._attempt = None
                self._discard(attempt.client)
        self._silent_on_5 = False
        # The last word of the older protocol may only say that it is not spoken; the first refusal says more.
        return next((lost for lost in reasons if lost.refused), reasons[-1])

    def _protocols(self) -> tuple[str, ...]:
        if self._config.protocol != "auto":
            return (self._config.protocol,)
        return ("3.1.1",) if self._silent_on_5 else ("5", "3.1.1")

    async def _welcome(self, attempt: _Attempt, protocol: str) -> tuple[Lost | None, bool]:
        """Connect; return the failure, and whether another protocol is worth an attempt."""
        connecting: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        threading.Thread(target=self._connect, args=(attempt.client, connecting), daemon=True).start()
        await asyncio.wait([connecting], timeout=2 * _CONNECT_TIMEOUT_S)
        if not connecting.done():
            return Lost(
                reason=f"{self._where} can't be reached: no answer within {_CONNECT_TIMEOUT_S * 2:.0f} s"
            ), False
        error = connecting.result()
        if error is not None:
            return Lost(reason=f"{self._where} can't be reached: {_spoken(error)}"), False
        attempt.client.loop_start()
        patience_s = _SILENCE_S if protocol == "5" and self._config.protocol == "auto" else _CONNECT_TIMEOUT_S
        await asyncio.wait((attempt.welcome, attempt.gone), timeout=patience_s, return_when="FIRST_COMPLETED")
        if attempt.welcome.done():
            lost = attempt.welcome.result()
            return lost, lost is not None and _UNSUPPORTED_PROTOCOL in lost.reason
        if attempt.gone.done():
            return Lost(reason=f"{self._where} hung up before it answered"), True
        # Taken back when 3.1.1 isn't answered either.
        self._silent_on_5 = protocol == "5"
        return Lost(reason=f"{self._where} takes connections and does not answer; is it an MQTT broker?"), True

    async def _serve(self, attempt: _Attempt, protocol: str) -> Lost:
        for topic in self._subscriptions:
            attempt.client.subscribe(topic, qos=_QOS)
        self._attempt = attempt
        limits = attempt.limits
        self._tell(Connected(protocol=protocol, max_in_flight=limits.max_in_flight, max_bytes=limits.max_bytes))
        began = asyncio.get_running_loop().time()
        reason = await attempt.gone
        self._short_lives = self._short_lives + 1 if asyncio.get_running_loop().time() - began < _SHORT_LIFE_S else 0
        # Brokers throw out the older of two clients of one name, and mosquitto 2.0 doesn't say why.
        twin = "; again and again: does another board have the same name?" if self._short_lives >= _TWIN_AFTER else ""
        return Lost(reason=f"lost {self._where}: {reason}{twin}")

    def _prepare(self, protocol: str) -> _Attempt:
        config = self._config
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=_PROTOCOLS[protocol],
            reconnect_on_failure=False,
            # Under 5 a connection starts clean by `clean_start`, paho's default; the outbox is our session.
            clean_session=True if protocol == "3.1.1" else None,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_inflight_messages_set(MAX_IN_FLIGHT + 4)
        client.max_queued_messages_set(MAX_IN_FLIGHT + 4)
        client.will_set(self._will.topic, self._will.payload, qos=_QOS, retain=self._will.retain)
        if config.username is not None:
            client.username_pw_set(config.username, self._password())
        if config.tls:
            self._use_tls(client)
        attempt = _Attempt(client)
        self._listen(attempt)
        return attempt

    def _password(self) -> str | None:
        if self._config.password_file is None:
            return None
        try:
            return Path(self._config.password_file).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            message = f"mqtt.password_file {self._config.password_file} can't be read: {_spoken(error)}"
            raise OSError(message) from error

    def _use_tls(self, client: paho.Client) -> None:
        try:
            client.tls_set(ca_certs=self._config.ca_file)
        except (OSError, ValueError) as error:
            message = f"mqtt.ca_file {self._config.ca_file} can't be used: {_spoken(error)}"
            raise OSError(message) from error

    def _listen(self, attempt: _Attempt) -> None:
        """Route paho's callbacks (on its thread) to the event loop."""
        loop = asyncio.get_running_loop()

        def post(act: Callable[..., None], *arguments: object) -> None:
            # The loop may be closed already when the agent ends; then nobody is interested.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(act, attempt, *arguments)

        def on_connect(_c: Any, _u: Any, _f: Any, reason: ReasonCode, properties: Any) -> None:  # noqa: ANN401 - paho's
            post(self._on_connack, reason, properties)

        def on_disconnect(_c: Any, _u: Any, flags: Any, reason: ReasonCode, _p: Any) -> None:  # noqa: ANN401
            post(self._on_gone, str(reason) if flags.is_disconnect_packet_from_server else "the connection broke")

        def on_publish(_c: Any, _u: Any, mid: int, reason: ReasonCode, _p: Any) -> None:  # noqa: ANN401
            post(self._on_puback, mid, reason)

        def on_subscribe(_c: Any, _u: Any, _mid: int, reasons: list[ReasonCode], _p: Any) -> None:  # noqa: ANN401
            post(self._on_suback, reasons)

        def on_message(_c: Any, _u: Any, message: paho.MQTTMessage) -> None:  # noqa: ANN401
            if not message.retain:
                post(self._on_message, message.topic, bytes(message.payload))

        client = attempt.client
        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_publish = on_publish
        client.on_subscribe = on_subscribe
        client.on_message = on_message

    def _connect(self, client: paho.Client, result: asyncio.Future[Exception | None]) -> None:
        """Run in a thread of its own: name resolution, TCP and TLS block, and a dead name server blocks long."""
        error: Exception | None = None
        try:
            client.connect(self._config.host, self._config.port, keepalive=self._config.keepalive_s)
        except (OSError, ValueError) as caught:
            error = caught

        def deliver() -> None:
            if not result.done():
                result.set_result(error)

        with contextlib.suppress(RuntimeError):
            result.get_loop().call_soon_threadsafe(deliver)

    def _discard(self, client: paho.Client) -> None:
        """End a client: a DISCONNECT if there is a connection; its thread ends with the socket."""
        client.disconnect()
        threading.Thread(target=_join, args=(client,), daemon=True).start()

    def _on_connack(self, attempt: _Attempt, reason: ReasonCode, properties: Any) -> None:  # noqa: ANN401
        if attempt.welcome.done():
            return
        if reason.value >= _FAILURE:
            text = str(reason)
            refused = text in _PERSON_NEEDED
            attempt.welcome.set_result(Lost(reason=f"{self._where} refuses this board: {text}", refused=refused))
            return
        receive_maximum = getattr(properties, "ReceiveMaximum", MAX_IN_FLIGHT)
        attempt.limits = Connected(
            protocol="",
            # Half of a tiny window stays free for what is not queued: state and availability.
            max_in_flight=max(1, min(MAX_IN_FLIGHT, receive_maximum - 1)),
            max_bytes=getattr(properties, "MaximumPacketSize", None),
        )
        attempt.welcome.set_result(None)

    def _on_gone(self, attempt: _Attempt, reason: str) -> None:
        if not attempt.gone.done():
            attempt.gone.set_result(reason)

    def _on_puback(self, attempt: _Attempt, mid: int, reason: ReasonCode) -> None:
        if attempt.farewell is not None and attempt.farewell[0] == mid:
            attempt.farewell[1].set_result(None)
        token = attempt.tokens.pop(mid, NOBODY)
        problem = str(reason) if reason.value >= _FAILURE else None
        if attempt is self._attempt and token != NOBODY:
            self._tell(Settled(token=token, problem=problem, hopeless=problem in _HOPELESS))
        elif problem is not None:
            _LOG.warning("%s refuses a message: %s", self._where, problem)

    def _on_suback(self, attempt: _Attempt, reasons: list[ReasonCode]) -> None:
        for reason in reasons:
            if reason.value >= _FAILURE and attempt is self._attempt:
                _LOG.warning("%s refuses the subscription to commands: %s", self._where, reason)

    def _on_message(self, attempt: _Attempt, topic: str, payload: bytes) -> None:
        if attempt is self._attempt:
            self._tell(Received(topic=topic, payload=payload))


def _join(client: paho.Client) -> None:
    # paho forgets its thread between looking at it and joining it when the thread ends in that moment.
    with contextlib.suppress(AttributeError):
        client.loop_stop()


def _spoken(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, socket.gaierror):
        return "its name can't be resolved"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


#: Named so that a misspelt reason fails at import, not in the field.
for _name in (*_PERSON_NEEDED, _UNSUPPORTED_PROTOCOL):
    ReasonCode(PacketTypes.CONNACK, _name)
