"""The whole agent as a real process: real worker, real model, real mosquitto; killed, cut off, refused, asked."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests import brokers, models_made
from tests.device import homes_made, running_bundles
from tests.device.children import RUNTIMES
from tflotilla.device import control
from tflotilla.shared.contract import topics
from tflotilla.shared.contract.messages import Ack, Message, State

if TYPE_CHECKING:
    from pathlib import Path

    from tflotilla.device.home import Home

pytestmark = pytest.mark.mosquitto
BENCHMARK = topics.command(homes_made.FLEET, homes_made.BOARD, "benchmark")
STATE = topics.command(homes_made.FLEET, homes_made.BOARD, "state")


@pytest.fixture
def home(tmp_path: Path, broker: brokers.Mosquitto) -> Home:
    return homes_made.make(tmp_path / "home", homes_made.config(broker.port))


def numbered(listener: brokers.Listener, boot: str | None = None) -> list[int]:
    """The seqs of one boot that arrived, sorted, each once."""
    return sorted({m.seq for m in listener.messages() if m.seq and boot in (None, m.boot)})


def boots(listener: brokers.Listener) -> list[str]:
    """The boots that were heard of, in order."""
    return list(dict.fromkeys(m.boot for m in listener.messages()))


def last_state(listener: brokers.Listener) -> State | None:
    found = listener.messages("state")
    return found[-1].body if found else None


def predictions(listener: brokers.Listener) -> list[Any]:
    return [result for message in listener.messages("predictions") for result in message.body.results]


def test_predictions_metrics_and_state_arrive(home: Home, listener: brokers.Listener) -> None:
    bundle = homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(lambda: len(predictions(listener)) >= 20, "predictions")
        brokers.until(lambda: len(listener.messages("metrics")) >= 3, "metrics")
        brokers.until(lambda: (s := last_state(listener)) is not None and s.worker == "running", "the state")

        state = last_state(listener)
        assert state is not None
        assert state.serving is not None
        assert state.serving.digest == bundle
        assert state.runtime is not None
        assert state.runtime.name == RUNTIMES[0]
        assert state.problem is None
        assert {m.bundle for m in listener.messages("predictions")} == {bundle}
        assert predictions(listener)[0].top[0].label in models_made.LABELS
        assert {m.body.status for m in listener.messages("availability")} == {"online"}
        assert agent.terminate() == 0
        brokers.until(lambda: listener.messages("availability")[-1].body.status == "offline", "the farewell")
    assert numbered(listener) == list(range(1, numbered(listener)[-1] + 1))


def test_real_images_of_a_folder_are_told_apart(tmp_path: Path, broker: brokers.Mosquitto) -> None:
    running_bundles.write_images(tmp_path / "images")
    toml = homes_made.config(broker.port).replace(
        "[source]", f'[source]\nkind = "folder"\npath = "{tmp_path / "images"}"'
    )
    home = homes_made.make(tmp_path / "home", toml)
    homes_made.install(home)
    with brokers.listening(broker) as listener, homes_made.running(home):
        brokers.until(lambda: len(predictions(listener)) >= 10, "predictions")

        for result in predictions(listener):
            assert result.top[0].label in result.item


def test_a_broker_outage_leaves_no_gap(home: Home, broker: brokers.Mosquitto, listener: brokers.Listener) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(lambda: len(listener.messages("metrics")) >= 3, "metrics before the outage")
        broker.stop()
        brokers.until(lambda: agent.state().outbox_rows >= 10, "reports to pile up")
        assert "can't be reached" in (agent.state().problem or "")
        before = len(predictions(listener))

        broker.start()
        brokers.until(lambda: agent.state().outbox_rows <= 2 and len(predictions(listener)) > before, "the rest")
        agent.terminate()

    brokers.until(lambda: listener.messages("availability")[-1].body.status == "offline", "the farewell")
    assert numbered(listener) == list(range(1, numbered(listener)[-1] + 1))
    assert len(boots(listener)) == 1


def test_with_a_collector_nothing_is_lost_even_when_the_broker_dies(
    tmp_path: Path, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    """A PUBACK is not delivery: a broker that is killed loses what it took. An acknowledgement is."""
    home = homes_made.make(tmp_path / "home", homes_made.config(broker.port, reporting='confirm = "collector"'))
    homes_made.install(home)

    def acknowledge() -> None:
        if seqs := numbered(listener):
            up_to = next((n for n in range(1, len(seqs) + 1) if seqs[n - 1] != n), len(seqs) + 1) - 1
            ack = Ack(boot=boots(listener)[0], up_to=up_to)
            message = Message(board=homes_made.BOARD, boot="collector", seq=0, time=0.0, bundle=None, body=ack)
            listener.send(topics.topic(homes_made.FLEET, homes_made.BOARD, "ack"), message.to_bytes())

    def reported(count: int) -> bool:
        acknowledge()
        seqs = numbered(listener)
        # What the dead broker had taken comes again after a while, later than what is new.
        return len(seqs) >= count and seqs[-1] == len(seqs)

    with homes_made.running(home) as agent:
        brokers.until(lambda: reported(10), "reports before")
        for _ in range(2):
            broker.kill()
            brokers.until(lambda: agent.state().outbox_rows >= 10, "reports to pile up")
            broker.start()
            more = len(numbered(listener)) + 20
            brokers.until(lambda more=more: reported(more), "reports after")  # type: ignore[misc]
        agent.terminate()

    seqs = numbered(listener)
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_kill_during_an_outage_loses_nothing_that_was_in_the_outbox(
    home: Home, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(lambda: len(listener.messages("metrics")) >= 2, "metrics before the outage")
        broker.stop()
        heard = numbered(listener)[-1]
        brokers.until(lambda: agent.state().outbox_rows >= 10, "reports to pile up")
        kept = agent.state().outbox_rows
        agent.kill()

    broker.start()
    with homes_made.running(home) as agent:
        brokers.until(lambda: len(boots(listener)) == 2, "the second run")
        brokers.until(lambda: control.is_running(home) and agent.state().outbox_rows <= 2, "the outbox to be delivered")
        agent.terminate()

    first, second = boots(listener)
    seqs = numbered(listener, first)
    late = [seq for seq in seqs if seq > heard]
    assert late == list(range(late[0], late[-1] + 1))
    # All but what had come in the last moment, whose commit the kill was ahead of.
    assert len(late) >= kept - 2
    assert numbered(listener, second)[0] == 1


def test_a_broker_that_is_down_at_the_start_is_no_reason_not_to_serve(
    home: Home, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    homes_made.install(home)
    broker.stop()
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        brokers.until(lambda: agent.state().outbox_rows >= 4, "reports to pile up")
        broker.start()
        brokers.until(lambda: len(predictions(listener)) >= 20, "predictions")

    assert numbered(listener)[0] == 1


def test_a_worker_that_is_killed_is_started_again(home: Home, listener: brokers.Listener) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(lambda: len(predictions(listener)) >= 5, "predictions")
        (worker,) = homes_made.worker_pids(agent)

        os.kill(worker, signal.SIGKILL)

        brokers.until(lambda: homes_made.worker_pids(agent) not in ([], [worker]), "another worker")
        before = len(predictions(listener))
        brokers.until(lambda: len(predictions(listener)) > before, "predictions of another worker")
        crashes = [m.body for m in listener.messages("event") if m.body.kind == "worker"]
        assert [event.level for event in crashes] == ["error"]
        assert "the worker process crashed (SIGKILL)" in crashes[0].message
        assert agent.process.poll() is None


def test_a_worker_that_can_not_load_its_model_is_failing_and_says_why(home: Home, listener: brokers.Listener) -> None:
    homes_made.install(home, model=b"no model at all")
    with homes_made.running(home) as agent:
        brokers.until(lambda: (s := last_state(listener)) is not None and s.worker == "failing", "a failing worker")

        state = last_state(listener)
        assert state is not None
        assert state.problem
        assert "Traceback" not in state.problem
        assert "\n" not in state.problem
        brokers.until(lambda: agent.log.count("started again in") >= 2, "a second attempt")
        waits = [float(wait) for wait in re.findall(r"started again in ([0-9.]+) s", agent.log)]
        assert waits[1] > waits[0] / 2


def test_when_the_agent_is_killed_its_worker_ends_too(home: Home) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        (worker,) = homes_made.worker_pids(agent)
        agent.kill()

        brokers.until(lambda: not _lives(worker), "the worker to end")


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:  # noqa: PTH123 - a path of the kernel
            return stream.read().rsplit(b")", 1)[1].split()[0] != b"Z"
    except OSError:
        return False


def test_the_will_says_offline_when_the_agent_is_killed(home: Home, listener: brokers.Listener) -> None:
    with homes_made.running(home) as agent:
        brokers.until(lambda: bool(listener.messages("availability")), "online")
        agent.kill()
        brokers.until(lambda: listener.messages("availability")[-1].body.status == "offline", "the will")


def test_a_refused_password_is_one_line_a_problem_and_later_forgiven(tmp_path: Path) -> None:
    with brokers.mosquitto(tmp_path / "broker", username="pi", password="right") as broker:
        mqtt = 'username = "pi"\npassword_file = "mqtt-password"'
        home = homes_made.make(tmp_path / "home", homes_made.config(broker.port, mqtt=mqtt))
        home.mqtt_password.write_text("a wrong secret\n")
        homes_made.install(home)
        with brokers.listening(broker) as listener, homes_made.running(home) as agent:
            brokers.until(lambda: control.is_running(home) and agent.state().problem is not None, "a problem")
            problem = agent.state().problem or ""
            assert f"broker 127.0.0.1:{broker.port} refuses this board: Not authorized" in problem
            brokers.until(lambda: broker.log.count("not authorised") >= 3, "three attempts")
            assert agent.log.count("refuses this board") == 1
            assert "secret" not in agent.log
            assert agent.state().worker in ("starting", "running")

            home.mqtt_password.write_text("right\n")

            brokers.until(lambda: bool(predictions(listener)), "predictions")
            refusals = [m.body for m in listener.messages("event") if m.body.kind == "reporting"]
            assert [event.level for event in refusals] == ["error"]
            assert agent.state().problem is None
            assert numbered(listener)[0] == 1


def test_nonsense_for_commands_is_answered_with_an_event(home: Home, listener: brokers.Listener) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        for nonsense in (b"", b"\xff\xfe", b"[]", b'{"request":7}', b'{"method":{}}'):
            listener.send(BENCHMARK, nonsense)
        listener.send(BENCHMARK, b'{"request":"x","method":{"max_seconds":1e9}}')
        brokers.until(lambda: bool(listener.messages("benchmark")), "the refusal")
        brokers.until(lambda: sum(m.body.kind == "command" for m in listener.messages("event")) >= 5, "events")

        # Somebody waits for an answer to what has an id.
        (message,) = listener.messages("benchmark")
        assert message.body.request == "x"
        assert message.body.error == "command/benchmark.method: max_seconds must be 0.001..3600, not 1e+09"
        assert message.body.last
        assert agent.process.poll() is None


def test_the_state_comes_when_asked_for(home: Home, listener: brokers.Listener) -> None:
    with homes_made.running(home):
        brokers.until(lambda: last_state(listener) is not None, "the first state")
        before = len(listener.messages("state"))

        # The subscription may be a moment younger than the first state.
        def asked() -> bool:
            listener.send(STATE, b"{}")
            return len(listener.messages("state")) > before

        brokers.until(asked, "another state")
        state = last_state(listener)
        assert state is not None
        assert (state.worker, state.serving) == ("none", None)


def test_a_hangup_takes_up_a_new_configuration_and_keeps_the_old_one_when_it_is_wrong(
    home: Home, broker: brokers.Mosquitto, listener: brokers.Listener
) -> None:
    homes_made.install(home)
    with homes_made.running(home) as agent:
        brokers.until(agent.serves, "the worker to run")
        good = home.config.read_text()
        home.config.write_text(good.replace("interval_ms", "interval_msec"))
        agent.reload()
        brokers.until(
            lambda: any(m.body.kind == "config" for m in listener.messages("event")), "an event about the mistake"
        )
        assert "did you mean 'interval_ms'?" in agent.log
        assert agent.state().worker == "running"
        brokers.until(
            lambda: (s := last_state(listener)) is not None and "did you mean 'interval_ms'?" in (s.problem or ""),
            "the mistake in the state",
        )

        home.config.write_text(good)
        agent.reload()
        brokers.until(lambda: agent.state().problem is None, "the mistake to be forgotten")

        home.config.write_text(homes_made.config(broker.port, board="pi-renamed"))
        agent.reload()
        brokers.until(lambda: any(m.board == "pi-renamed" for m in listener.messages("predictions")), "the new name")
        assert agent.terminate() == 0
    assert len(boots(listener)) == 2


def test_a_wrong_configuration_is_one_line_and_the_exit_code_of_its_class(tmp_path: Path) -> None:
    home = homes_made.make(tmp_path / "home", 'board = "pi-1"\nfleet = "t"\n[mqt]\n')
    found = subprocess.run(
        [sys.executable, "-m", "tflotilla.device", "--home", str(home.path), "run"],
        capture_output=True,
        timeout=brokers.PATIENCE_S,
        check=False,
    )

    assert found.returncode == 3
    assert found.stderr.decode().count("\n") == 1
    assert "unknown key 'mqt'; did you mean 'mqtt'?" in found.stderr.decode()


def test_a_second_agent_in_one_home_is_refused(home: Home) -> None:
    with homes_made.running(home) as agent:
        brokers.until(lambda: control.is_running(home), "the agent")
        with homes_made.running(home) as second:
            assert second.process.wait(brokers.PATIENCE_S) == 11
        assert agent.process.poll() is None


def test_the_supervisor_never_loads_what_runs_models() -> None:
    """Its memory is the model's loss, and a corrupt model must not be able to take it down."""
    code = (
        "import sys; import tflotilla.device.agent, tflotilla.device.transports.mqtt;"
        "print([m for m in ('numpy', 'PIL', 'tflite_runtime', 'ai_edge_litert', 'tensorflow') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)

    assert found.stdout.decode().strip() == "[]"
