"""What every transport promises, proven on the in-memory fake and on MQTT over a real mosquitto.

A new transport is one more `World` here.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Protocol, TypeVar

import pytest

from tests import brokers
from tflotilla.device.backoff import Backoff
from tflotilla.device.transports import (
    MAX_IN_FLIGHT,
    Connected,
    Happening,
    Lost,
    Publication,
    Received,
    Settled,
    Transport,
)
from tflotilla.device.transports.memory import MemoryBroker, MemoryTransport
from tflotilla.device.transports.mqtt import MqttTransport
from tflotilla.shared.contract.agent_config import MqttConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

H = TypeVar("H", bound=Happening)
WILL = Publication(topic="tflotilla/t/pi-1/availability", payload=b"gone", retain=True)
FAREWELL = Publication(topic="tflotilla/t/pi-1/availability", payload=b"bye", retain=True)
COMMAND = "tflotilla/t/pi-1/command/state"


class World(Protocol):
    """The other side of a transport, as a test needs it."""

    def transport(self) -> Transport: ...
    def go_down(self) -> None: ...
    def come_up(self) -> None: ...
    def send(self, topic: str, payload: bytes) -> None: ...
    def seen(self) -> list[tuple[str, bytes]]: ...
    def freeze(self) -> None: ...
    def break_connection(self, transport: Transport) -> None: ...


class MemoryWorld:
    def __init__(self) -> None:
        self.broker = MemoryBroker()

    def transport(self) -> Transport:
        return MemoryTransport(self.broker, will=WILL, subscriptions=(COMMAND,))

    def go_down(self) -> None:
        self.broker.go_down()

    def come_up(self) -> None:
        self.broker.come_up()

    def send(self, topic: str, payload: bytes) -> None:
        self.broker.send(topic, payload)

    def seen(self) -> list[tuple[str, bytes]]:
        return [(publication.topic, publication.payload) for publication in self.broker.published]

    def freeze(self) -> None:
        self.broker.silent = True

    def break_connection(self, transport: Transport) -> None:
        assert isinstance(transport, MemoryTransport)
        self.broker.drop(transport)


class MqttWorld:
    def __init__(self, broker: brokers.Mosquitto, listener: brokers.Listener) -> None:
        self.broker = broker
        self.listener = listener

    def transport(self) -> Transport:
        return MqttTransport(
            MqttConfig(port=self.broker.port),
            client_id="contract",
            will=WILL,
            subscriptions=(COMMAND,),
            backoff=Backoff(first_s=0.05, limit_s=0.2),
        )

    def go_down(self) -> None:
        self.broker.kill()

    def come_up(self) -> None:
        self.broker.start()

    def send(self, topic: str, payload: bytes) -> None:
        self.listener.send(topic, payload)

    def seen(self) -> list[tuple[str, bytes]]:
        return [(topic, payload) for topic, payload, _ in self.listener.received]

    def freeze(self) -> None:
        self.broker.freeze()

    def break_connection(self, transport: Transport) -> None:
        assert isinstance(transport, MqttTransport)
        assert transport._attempt is not None
        connection = transport._attempt.client.socket()
        assert isinstance(connection, socket.socket)
        connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=["memory", pytest.param("mqtt", marks=pytest.mark.mosquitto)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "memory":
        yield MemoryWorld()
        return
    with brokers.mosquitto(tmp_path / "broker") as broker, brokers.listening(broker) as listener:
        yield MqttWorld(broker, listener)


class Diary:
    """Everything a transport told, in order."""

    def __init__(self) -> None:
        self.entries: list[Happening] = []
        self._news = asyncio.Event()

    def write(self, happening: Happening) -> None:
        self.entries.append(happening)
        self._news.set()

    def of(self, kind: type[H]) -> list[H]:
        return [entry for entry in self.entries if isinstance(entry, kind)]

    async def first(self, kind: type[H], *, count: int = 1) -> H:
        deadline = asyncio.get_running_loop().time() + brokers.PATIENCE_S
        while len(self.of(kind)) < count:
            assert asyncio.get_running_loop().time() < deadline, f"{kind.__name__} number {count}: {self.entries}"
            await asyncio.sleep(0.005)
        return self.of(kind)[count - 1]


async def with_deadline(holds: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + brokers.PATIENCE_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


def living(world: World, story: Callable[[Transport, Diary], Awaitable[None]]) -> None:
    """Let a story happen to a started transport, which is stopped afterwards."""

    async def live() -> None:
        diary = Diary()
        transport = world.transport()
        transport.start(diary.write)
        try:
            await story(transport, diary)
        finally:
            await transport.stop(FAREWELL)

    asyncio.run(live())


def publication(number: int) -> Publication:
    return Publication(topic="tflotilla/t/pi-1/event", payload=b"%d" % number)


def test_it_connects_by_itself(world: World) -> None:
    async def story(_transport: Transport, diary: Diary) -> None:
        connected = await diary.first(Connected)
        assert connected.max_in_flight >= 1

    living(world, story)


def test_what_it_took_arrives_and_is_settled(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

        assert transport.publish(publication(1), 41)

        assert await diary.first(Settled) == Settled(token=41)
        await with_deadline(lambda: ("tflotilla/t/pi-1/event", b"1") in world.seen(), "the message to arrive")

    living(world, story)


def test_order_is_kept(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)
        for number in range(1, 11):
            assert transport.publish(publication(number), number)
        await diary.first(Settled, count=10)
        await with_deadline(lambda: len(world.seen()) >= 10, "ten messages")

        assert [payload for _, payload in world.seen()] == [b"%d" % number for number in range(1, 11)]
        assert [settled.token for settled in diary.of(Settled)] == list(range(1, 11))

    living(world, story)


def test_nobody_hears_of_a_publication_nobody_waits_for(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

        transport.publish(publication(1))
        transport.publish(publication(2), 2)

        assert (await diary.first(Settled)).token == 2
        assert len(diary.of(Settled)) == 1

    living(world, story)


def test_a_request_comes_in(world: World) -> None:
    async def story(_transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

        # The subscription is asked for with the connection; a request may be a moment too early for it.
        async def ask() -> bool:
            world.send(COMMAND, b"now")
            await asyncio.sleep(0.05)
            return bool(diary.of(Received))

        while not await ask():
            pass

        assert diary.of(Received)[0] == Received(topic=COMMAND, payload=b"now")

    living(world, story)


def test_without_a_connection_nothing_is_taken(world: World) -> None:
    world.go_down()

    async def story(transport: Transport, diary: Diary) -> None:
        lost = await diary.first(Lost)

        assert not transport.publish(publication(1), 1)
        assert not lost.refused
        assert lost.reason
        assert "\n" not in lost.reason

    living(world, story)


def test_an_other_side_that_comes_later_is_found(world: World) -> None:
    world.go_down()

    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Lost)

        await asyncio.to_thread(world.come_up)

        await diary.first(Connected)
        assert transport.publish(publication(1), 1)
        await diary.first(Settled)

    living(world, story)


def test_a_connection_that_breaks_is_told_and_made_again(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

        world.go_down()
        await diary.first(Lost)
        await asyncio.to_thread(world.come_up)
        await diary.first(Connected, count=2)

        assert transport.publish(publication(1), 1)
        await diary.first(Settled)

    living(world, story)


def test_an_other_side_that_answers_nothing_gets_a_bounded_number_of_messages(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        connected = await diary.first(Connected)
        world.freeze()

        taken = [transport.publish(publication(number), number) for number in range(1, 100)]

        assert connected.max_in_flight <= sum(taken) <= MAX_IN_FLIGHT + 2
        assert not taken[-1]

    living(world, story)


def test_a_broken_connection_publishes_the_will(world: World) -> None:
    async def story(transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

        world.break_connection(transport)

        await with_deadline(lambda: (WILL.topic, b"gone") in world.seen(), "the will")

    living(world, story)


def test_a_stop_says_farewell_and_keeps_the_will(world: World) -> None:
    async def story(_transport: Transport, diary: Diary) -> None:
        await diary.first(Connected)

    living(world, story)

    brokers.until(lambda: bool(world.seen()), "the farewell")
    assert world.seen() == [(FAREWELL.topic, b"bye")]


def test_a_stop_without_a_connection_is_quick(world: World) -> None:
    world.go_down()

    async def live() -> float:
        diary = Diary()
        transport = world.transport()
        transport.start(diary.write)
        await diary.first(Lost)
        began = asyncio.get_running_loop().time()
        await transport.stop(FAREWELL)
        return asyncio.get_running_loop().time() - began

    assert asyncio.run(live()) < 5
