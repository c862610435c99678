"""What the whole agent says beside its reports, and to collectors that share the work: real worker, real mosquitto."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests import brokers, models_made
from tests.device import homes_made, running_bundles
from tflotilla.device.outbox import Outbox
from tflotilla.shared import sketches
from tflotilla.shared.contract import messages, topics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tflotilla.device.home import Home
    from tflotilla.shared.contract.messages import Flat, Metrics, ModelCard, Thumbnail

pytestmark = pytest.mark.mosquitto
MODEL = topics.topic(homes_made.FLEET, homes_made.BOARD, "model")


def home_at(tmp_path: Path, broker: brokers.Mosquitto, *, reporting: str = "", images: bool = False) -> Home:
    toml = homes_made.config(broker.port, reporting=reporting)
    if images:
        running_bundles.write_images(tmp_path / "images")
        toml = toml.replace("[source]", f'[source]\nkind = "folder"\npath = "{tmp_path / "images"}"')
    return homes_made.make(tmp_path / "home", toml)


def bodies(listener: brokers.Listener, channel: topics.Channel) -> list[Any]:
    return [message.body for message in listener.messages(channel)]


def retained(broker: brokers.Mosquitto, topic: str) -> list[bytes]:
    """What somebody hears of a topic who comes only now: retained messages first, then whatever the agent says."""
    with brokers.listening(broker, "#") as late:
        late.send("tests/mark", b"after what was retained")
        brokers.until(lambda: any(of == "tests/mark" for of, _, _ in late.received), "the broker to answer")
        return [payload for of, payload, kept in late.received if kept and of == topic]


def test_a_window_can_be_added_up(tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener) -> None:
    home = home_at(tmp_path, broker, reporting="sample = 2\nlow_confidence_below = 1.0")
    homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: sum(window.count for window in bodies(listener, "metrics")) > 20, "windows")

    windows: list[Metrics] = [window for window in bodies(listener, "metrics") if window.count]
    for window in windows:
        assert {sketches.count(stage.sketch) for stage in window.stages.values() if stage.sketch} == {window.count}
        assert all(stage.sketch is not None for stage in window.stages.values())
        assert all(label.std_score is not None for label in window.labels)
        assert window.low_confidence is not None
        assert len(window.sample) == min(2, window.count)
        assert {result.top[0].label for result in window.sample} <= {label.label for label in window.labels}


def test_a_card_tells_what_serves_also_to_who_comes_late(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    home = home_at(tmp_path, broker)
    bundle = homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: bool(bodies(listener, "model")), "the card")
        card: ModelCard = bodies(listener, "model")[-1]
        manifest = homes_made.manifest(home, bundle)
        (late,) = retained(broker, MODEL)
        assert (card.digest, card.name, card.version) == (bundle, manifest.name, manifest.version)
        assert messages.parse(MODEL, late)[1].body == card
        assert {message.seq for message in listener.messages("model")} == {0}

        # A broker that forgot everything is told again.
        told = len(bodies(listener, "model"))
        broker.kill()
        (broker.folder / "mosquitto.db").unlink(missing_ok=True)
        broker.start()
        brokers.until(lambda: len(bodies(listener, "model")) > told, "the card again")


def test_where_nothing_serves_no_card_stays_behind(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    home = home_at(tmp_path, broker)
    homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: bool(bodies(listener, "model")), "the card")
    home.current.unlink()
    with homes_made.running(home):
        brokers.until(lambda: any(t == MODEL and not p for t, p, _ in listener.received), "an empty card")

        assert retained(broker, MODEL) == []


def test_plain_numbers_come_where_they_are_asked_for(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    home = home_at(tmp_path, broker, reporting="flat = true")
    homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: sum(flat.count > 0 for flat in bodies(listener, "flat")) >= 3, "plain numbers")

    windows: list[Metrics] = bodies(listener, "metrics")
    flats: list[Flat] = bodies(listener, "flat")
    by_length = {(window.window_s, window.count): window for window in windows}
    for flat in flats:
        window = by_length[flat.window_s, flat.count]
        if window.count:
            assert flat.invoke_p99_ms == round(window.stages["invoke"].p99_ns / 1e6, 4)
    assert {message.seq for message in listener.messages("flat")} == {0}


def test_what_is_not_asked_for_is_not_said(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    home = home_at(tmp_path, broker, images=True)
    homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: len(bodies(listener, "metrics")) >= 3, "windows")

    assert bodies(listener, "flat") == []
    assert bodies(listener, "thumbnail") == []
    assert all(window.sample == () for window in bodies(listener, "metrics"))


def test_a_thumbnail_shows_an_input_and_what_was_made_of_it(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    home = home_at(tmp_path, broker, reporting="thumbnail_every_s = 0.5", images=True)
    homes_made.install(home)
    with homes_made.running(home):
        brokers.until(lambda: len(bodies(listener, "thumbnail")) >= 2, "thumbnails")

    shown: list[Thumbnail] = bodies(listener, "thumbnail")
    for thumbnail in shown:
        assert thumbnail.top[0].label in thumbnail.item
        label = models_made.LABELS.index(thumbnail.top[0].label)
        with Image.open(io.BytesIO(base64.b64decode(thumbnail.jpeg))) as image:
            assert (image.format, image.size) == ("JPEG", (8, 8))
            assert models_made.pattern(label).shape[:2] == image.size[::-1]
    assert {message.seq for message in listener.messages("thumbnail")} == {0}
    apart = [b.time - a.time for a, b in itertools.pairwise(shown)]
    assert min(apart) > 0.4


@contextlib.contextmanager
def collecting(broker: brokers.Mosquitto, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a collector that shares the work, from when it listens."""
    command = [sys.executable, "-m", "tests.device.range_collector", str(broker.port), str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def stored(*files: Path) -> list[int]:
    """The numbers that collectors have on disk, in the order they wrote them, with what came twice."""
    return [int(line.split()[1]) for file in files if file.exists() for line in file.read_text().splitlines()]


def test_what_sharing_collectors_acknowledged_is_not_lost_and_not_sent_for_ever(
    tmp_path: Path, broker: brokers.Mosquitto
) -> None:
    """One of them is killed, then the broker: each report is on some disk, and in the end none comes again."""
    home = home_at(tmp_path, broker, reporting='confirm = "collector"\npredictions = false')
    homes_made.install(home)
    files = [tmp_path / f"collected-{number}" for number in range(3)]
    with homes_made.running(home) as agent:
        with collecting(broker, files[0]), collecting(broker, files[1]) as victim:
            brokers.until(lambda: min(len(stored(files[0])), len(stored(files[1]))) >= 5, "both to have some")
            victim.kill()
            before = len(stored(files[0]))
            brokers.until(lambda: len(stored(files[0])) >= before + 5, "the other one to go on")
            broker.kill()
            brokers.until(lambda: agent.state().outbox_rows >= 10, "reports to pile up")
            broker.start()
            with collecting(broker, files[2]):
                brokers.until(lambda: len(stored(files[2])) >= 5, "the new one to have some")
                brokers.until(lambda: agent.state().outbox_rows <= 3, "all to be acknowledged")
                settled = stored(*files)
                brokers.until(lambda: len(stored(*files)) >= len(settled) + 20, "more reports")
                later = stored(*files)
        agent.terminate()

    outbox = Outbox(home.outbox, max_bytes=1 << 20)
    kept = [row.seq for row in outbox.after(0, limit=10_000)]
    outbox.close()
    everything = {*stored(*files), *kept}
    assert everything == set(range(1, max(everything) + 1))
    assert not set(settled) & {seq for seq in later if later.count(seq) > settled.count(seq)}
