"""The story that `tflotilla demo` tells: from a trained model to three boards that report, and back from bad releases.

Nine chapters, each a method that does the real thing with the same functions the commands use, tells it on a `Stage`
and notes its facts for `--json`. Nothing is staged: a chapter that does not go as it must raises.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, Self

from tflotilla.host.fleet import pool, push
from tflotilla.host.fleet.agents import bootstrap
from tflotilla.host.lab import bad_releases, crew, lab
from tflotilla.host.lab.listener import Listener
from tflotilla.host.lab.workshop import CALIBRATION_IMAGES, SCHEMES, SHIPPED, Workshop
from tflotilla.host.models import child
from tflotilla.host.pages import words
from tflotilla.shared.contract import codec, digest
from tflotilla.shared.contract.errors import IncompatibleError, ProbeError, VerificationError
from tflotilla.shared.contract.manifest import MODEL

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from tflotilla.host.bundles.archive import Bundle
    from tflotilla.host.fleet.agents.environments import RuntimeChoice
    from tflotilla.host.lab.stage import Stage
    from tflotilla.host.telemetry.fleet_view import FleetView

CHAPTERS = 9
BrokerChoice = Literal["auto", "mosquitto", "embedded"]
_WATCH_S = 5.0
_ENDING_S = 0.05
#: By what runs and what was asked for.
_BROKERS = {
    ("mosquitto", "auto"): "the mosquitto that is installed here",
    ("mosquitto", "mosquitto"): "the mosquitto that is installed here",
    ("embedded", "auto"): "the embedded broker: no mosquitto is installed here",
    ("embedded", "embedded"): "the embedded broker, as asked",
}


class Story:
    """The demo as a context manager: what it brought up goes down at its end, unless it is to be kept."""

    def __init__(self, stage: Stage, *, name: str, broker: BrokerChoice, keep: bool) -> None:
        self.facts: dict[str, Any] = {}
        self._stage = stage
        stage.chapters = CHAPTERS
        self._name = name
        self._broker = broker
        self._keep = keep
        self._closing = ExitStack()
        self._taking_down = ExitStack()
        self._background = ThreadPoolExecutor(max_workers=1)
        self._made_meanwhile: tuple[Future[Bundle], ...] = ()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_details: object) -> None:
        """Stop listening, and take the lab down; a story that came to its end may leave it up."""
        with self._taking_down:
            if self._keep and kind is None:
                self._taking_down.pop_all()
            self._background.shutdown(wait=False, cancel_futures=True)
            # Whoever interrupts the story does not wait for the second training.
            while not all(made.done() for made in self._made_meanwhile):
                child.end_all()
                time.sleep(_ENDING_S)
            self._closing.close()

    def tell(self) -> None:
        """Tell all chapters in order."""
        self.bring_up_the_lab()
        self.train_and_convert()
        self.sign_a_bundle()
        self.bootstrap_the_boards()
        self.deploy_the_bundle()
        self.watch_the_boards()
        self.benchmark_the_boards()
        self.try_bad_releases()
        self.go_on_and_back()

    def summary(self) -> tuple[str, ...]:
        """Return the figures of the whole story, a line each."""
        facts = self.facts
        original, shipped = facts["variants"][0], facts["variants"][-1]
        bad = facts["bad_releases"]
        heard = facts["altogether"]
        lost = shipped["accuracy_lost"] * 100
        return (
            f"{original['size_bytes'] / shipped['size_bytes']:.1f} times smaller than float32, "
            + (f"{lost:.2f} points of accuracy lost" if lost > 0 else "no accuracy lost"),
            f"{len(self._names)} boards brought up from nothing but sshd and python3",
            f"{heard['predictions']:,} predictions over MQTT, {heard['missing']} reports missing",
            f"{len(bad['tried'])} bad releases tried, {bad['by_a_bad_release']} predictions by them",
            f"one release forward, one back, in {self._stage.elapsed_s:.0f} s altogether",
        )

    def bring_up_the_lab(self) -> None:
        """Bring up three boards and a broker."""
        stage = self._stage
        stage.chapter("A lab of three boards comes up")
        with stage.working("starting SSH servers and a broker"):
            started = time.monotonic()
            self._lab = lab.up(name=self._name, boards=crew.BOARDS, broker=self._broker, bound=not self._keep)
            self._taking_down.callback(self._lab.down)
            # In the lab's own folder: `lab down` takes it away, and after a crash the next lab of that name does.
            self._folder = self._lab.folder / "story"
            self._folder.mkdir()
        boards = self._lab.boards
        self._names = [board.name for board in boards]
        took_s = time.monotonic() - started
        stage.table(
            ("board", "SSH server", "host key"),
            [(board.name, f"{board.host}:{board.port}", crew.fingerprint(board.host_key)) for board in boards],
        )
        broker = self._lab.broker
        stage.good(f"{len(boards)} boards in {took_s:.1f} s, each with its own host key, home and processes")
        stage.good(f"MQTT over {_BROKERS[broker.kind, self._broker]}")
        self.facts["lab"] = {
            "boards": [{"name": board.name, "host": board.host, "port": board.port} for board in boards],
            "broker": broker.kind,
            "fleet": str(self.fleet_file) if self._keep else None,
            "seconds": took_s,
        }

    def train_and_convert(self) -> None:
        """Train on real digits, convert to five schemes, and judge each on digits nobody trained on."""
        stage = self._stage
        stage.chapter("A CNN learns handwritten digits and becomes five TFLite files")
        with stage.working("training the CNN on the UCI digits (TensorFlow starts)") as now:
            self._shop = Workshop(self._folder)
            trained = self._shop.train("digits-1", epochs=15, width=16)
            now("converting")
            report = self._shop.convert(trained, SCHEMES, on_progress=now)
            now("judging every file on the held-out digits")
            scores = self._shop.judge([file.path for file in report.files])
        stage.say(
            f"{trained.parameters:,} parameters, {trained.accuracy:.1%} on {len(self._shop.data.held_out_images)} "
            f"digits by writers it never saw; calibrated on {CALIBRATION_IMAGES} images it was trained on."
        )
        reference = scores[0].value
        judged = list(zip(report.files, scores, strict=True))
        figures = ("size", "compressed", "accuracy", "lost, points", "p50 here")
        stage.table(
            ("scheme", *figures),
            [
                (
                    file.scheme.value,
                    _kb(file.inspection.size_bytes),
                    _kb(file.compressed_bytes),
                    f"{score.value:.2%}",
                    f"{(reference - score.value) * 100:.2f}",
                    words.duration(score.stages["invoke"].p50_ns),
                )
                for file, score in judged
            ],
            right=figures,
        )
        self.facts["training"] = {"accuracy": trained.accuracy, "parameters": trained.parameters}
        self.facts["variants"] = [
            {
                "scheme": file.scheme.value,
                "size_bytes": file.inspection.size_bytes,
                "compressed_bytes": file.compressed_bytes,
                "accuracy": score.value,
                "accuracy_lost": reference - score.value,
                "p50_ns": score.stages["invoke"].p50_ns,
                "runtime": score.runtime,
            }
            for file, score in judged
        ]
        self._trained = trained
        self._shipped = next((file.path, score) for file, score in judged if file.scheme is SHIPPED)

    def sign_a_bundle(self) -> None:
        """Make the uint8 variant a signed bundle with goldens."""
        stage = self._stage
        stage.chapter("The uint8 variant becomes a signed bundle with golden vectors")
        with stage.working("running the model on this machine's runtimes"):
            model, score = self._shipped
            self._first = self._shop.release(model, version="1.0.0", release=10, score=score)
        # What the later chapters need is made while the boards are being prepared.
        self._future = self._background.submit(self._shop.future_release, self._trained, self._first)
        self._second = self._background.submit(self._shop.second_release)
        self._made_meanwhile = (self._future, self._second)
        manifest = self._first.manifest
        goldens = manifest.goldens
        stage.good(
            f"{self._first.path.name}: {_kb(self._first.size_bytes)}, digest {digest.short(self._first.digest)}, "
            f"signed with an SSH key"
        )
        stage.good(
            f"{goldens.count} golden vectors from {goldens.runtime}, for boards to reproduce within "
            f"{goldens.tolerance_lsb} LSB"
        )
        self.facts["bundle"] = {"digest": self._first.digest, "title": manifest.title, "goldens": goldens.count}

    def bootstrap_the_boards(self) -> None:
        """Enrol the boards in a fleet and bring the agent onto them."""
        stage = self._stage
        stage.chapter("The boards are enrolled and bootstrapped over SSH")
        self._fleet = crew.enrol(self._lab, self.fleet_file, signing_key=self._shop.key)
        crew.show_digits(self._lab, self._shop.data)
        plan: dict[str, RuntimeChoice] = dict(
            zip((b.name for b in self._lab.boards), crew.runtimes(both=self._shop.both_runtimes), strict=True)
        )
        with stage.working("building environments for the boards, and pushing them") as now:
            results = pool.run(
                list(plan),
                lambda name: bootstrap.bootstrap(
                    name, self._fleet, runtime=plan[name], on_step=lambda text: now(f"{name}: {text}")
                ),
            )
        done = [crew.value(result) for result in results]
        stage.table(
            ("board", "system", "Python", "runtimes", "sent"),
            [
                (
                    each.board,
                    f"{each.hello.facts.arch}, {each.hello.facts.libc}",
                    each.hello.facts.python,
                    ", ".join(f"{offer.name} {offer.version}" for offer in each.hello.facts.runtimes),
                    _mb(each.bytes_sent),
                )
                for each in done
            ],
            right=("sent",),
        )
        stage.good("built here and pushed whole: the boards needed no pip and no internet")
        if not self._shop.both_runtimes:
            stage.say("(tflite-runtime has no wheel for this Python, so every board runs LiteRT.)", style="dim")
        self.facts["boards"] = [
            {"board": each.board, "facts": each.hello.facts, "bytes_sent": each.bytes_sent} for each in done
        ]
        self._listener = self._closing.enter_context(
            Listener(self._lab.broker.config, folder=self._folder, fleet=self._fleet.name, truth=crew.truth)
        )

    def deploy_the_bundle(self) -> None:
        """Deploy the first release to every board."""
        stage = self._stage
        stage.chapter("The bundle is deployed")
        with stage.working("deploying") as now:
            results = push.deploy_many(
                self._names,
                self._fleet,
                self._first,
                on_status=lambda name, status: now(f"{name}: {status.state.value}"),
            )
        outcomes = [crew.value(result) for result in results]
        stage.table(
            ("board", "serves", "sent", "took"),
            [
                (each.board, self._first.manifest.title, _kb(each.bytes_sent), f"{each.duration_s:.1f} s")
                for each in outcomes
            ],
            right=("sent", "took"),
        )
        # A board that missed a state would show as a way of its own.
        for way in dict.fromkeys(" → ".join(status.state.value for status in each.statuses) for each in outcomes):
            stage.good(way)
        again = push.deploy(self._names[0], self._fleet, self._first)
        if again.changed:
            raise crew.StoryError(f"{self._names[0]} installed again what it had")
        stage.good(
            f"sent again to {self._names[0]}, it answers “I serve that already”: {again.bytes_sent:,} bytes in all"
        )
        self.facts["deployment"] = {
            "boards": {each.board: [status.state.value for status in each.statuses] for each in outcomes},
            "bytes_sent": {each.board: each.bytes_sent for each in outcomes},
            "seconds": {each.board: each.duration_s for each in outcomes},
            "bytes_when_present": again.bytes_sent,
        }

    def watch_the_boards(self) -> None:
        """Show live what the boards report."""
        stage = self._stage
        stage.chapter("The boards classify digits nobody trained on, and report over MQTT")
        before = self._listener.tally
        if not self._listener.wait_until(
            lambda view: all(name in view.boards and view.boards[name].predictions for name in self._names),
            timeout_s=30,
        ):
            raise crew.StoryError("not every board reports predictions after 30 s")
        stage.watching(
            lambda: stage.build_table(
                crew.LIVE_COLUMNS, crew.live_rows(self._listener.view, self._names), right=crew.LIVE_FIGURES
            ),
            seconds=_WATCH_S,
            caption="live over MQTT",
        )
        heard = self._listener.tally.since(before)
        stage.good(
            f"{heard.total:,} predictions heard, {heard.accuracy or 0:.1%} of them right, "
            f"{sum(heard.missing.values())} reports missing"
        )
        self.facts["telemetry"] = {
            "predictions": heard.total,
            "accuracy": heard.accuracy,
            "missing": sum(heard.missing.values()),
            "boards": {
                name: board.metrics for name, board in self._listener.view.boards.items() if name in self._names
            },
        }

    def benchmark_the_boards(self) -> None:
        """Ask every board for a benchmark over MQTT, one after the other: they share this machine's cores."""
        from tflotilla.host.benchmarks.matrix import Axes, configurations
        from tflotilla.host.benchmarks.measuring import Measurer, Subject
        from tflotilla.host.benchmarks.rendering import table
        from tflotilla.host.benchmarks.results import Run
        from tflotilla.shared.contract.benchmark import Method

        stage = self._stage
        stage.chapter("Every board measures itself, on request")
        method = Method(warmup_runs=20, min_runs=700, min_seconds=0.2, max_seconds=5.0)
        with stage.working("measuring") as now:
            measurer = Measurer(fleet=self._fleet, way="mqtt", at_once=1, tell=now)
            boards = measurer.measure(
                tuple(self._names), Subject(), method, lambda facts: configurations(Axes(threads=(1, 2)), facts)
            )
        for board in boards:
            if board.failure is not None:
                raise board.failure
        run = Run(id="demo", created=time.time(), boards=boards)
        for shown in table.tables(run):
            stage.table(shown.columns, shown.rows, right=shown.right)
            for line in shown.notes:
                stage.say(line, style="dim")
        stage.say(
            "Three boards share the cores of this machine while they serve: a real fleet measures itself the same way.",
            style="dim",
        )
        self.facts["benchmark"] = codec.encode(run)

    def try_bad_releases(self) -> None:
        """Try three bad releases and count that the old model served throughout."""
        stage = self._stage
        stage.chapter("Three bad releases are tried")
        before = self._listener.tally
        victim = self._names[0]
        with stage.working("making them"):
            future = self._future.result()
            tampered = bad_releases.tampered(self._first, version="1.0.2", output=self._folder / "digits-1.0.2.tflb")
            mixed_up = bad_releases.mixed_up(
                self._first,
                self._second.result().read(MODEL),
                version="1.0.3",
                key=self._shop.key,
                output=self._folder / "digits-1.0.3.tflb",
            )
        told = []
        for title, bundle, where, expected in (
            ("ops newer than the runtime", future, "before a byte was sent", IncompatibleError),
            ("labels swapped after signing", tampered, "by the board, from the manifest alone", VerificationError),
            ("not the model its goldens are of", mixed_up, "in the probe, beside the serving model", ProbeError),
        ):
            with stage.working(f"deploying a release with {title}"):
                error = crew.refusal(victim, self._fleet, bundle, expected)
            stage.refused(f"{title}: refused {where}")
            stage.detail(str(error))
            told.append({"release": title, "refused": where, "error": type(error).__name__, "message": str(error)})
        self._listener.wait_until(lambda _: self._listener.tally.since(before).total > 0, timeout_s=10)
        heard = self._listener.tally.since(before)
        strangers = heard.total - heard.of_bundle(self._first.digest)
        if strangers or not heard.total or any(heard.missing.values()):
            raise crew.StoryError(f"{strangers} predictions by a bad release, {heard.missing} reports missing")
        stage.good(
            f"meanwhile {heard.total:,} predictions, all by {self._first.manifest.title}; by a bad release: 0; "
            f"reports missing: 0"
        )
        self.facts["bad_releases"] = {
            "tried": told,
            "predictions_meanwhile": heard.total,
            "by_the_old_release": heard.of_bundle(self._first.digest),
            "by_a_bad_release": strangers,
            "missing": sum(heard.missing.values()),
        }

    def go_on_and_back(self) -> None:
        """Deploy a good second release, then roll back."""
        stage = self._stage
        stage.chapter("A better second release goes out, and comes back")
        with stage.working("the second release was trained meanwhile"):
            second = self._second.result()
        with stage.working("deploying") as now:
            results = push.deploy_many(
                self._names, self._fleet, second, on_status=lambda name, status: now(f"{name}: {status.state.value}")
            )
        for result in results:
            crew.value(result)
        self._await_everywhere(second)
        accuracy = second.manifest.evaluation.accuracy if second.manifest.evaluation else 0.0
        stage.good(f"{second.manifest.title} ({accuracy:.2%} on the held-out digits) serves on {len(results)} boards")
        with stage.working("rolling back"):
            back = pool.run(self._names, lambda name: push.rollback(name, self._fleet))
        for result in back:
            crew.value(result)
        self._await_everywhere(self._first)
        stage.good(f"`rollback` brought {self._first.manifest.title} back on {len(back)} boards")
        self.facts["second_release"] = {
            "digest": second.digest,
            "accuracy": accuracy,
            "rolled_back_to": self._first.digest,
        }
        whole = self._listener.tally
        self.facts["altogether"] = {"predictions": whole.total, "missing": sum(whole.missing.values())}

    @property
    def fleet_file(self) -> Path:
        """The inventory that the demo made."""
        return self._folder / "fleet" / "fleet.toml"

    @property
    def second_bundle(self) -> Path:
        """The release that was tried and taken back."""
        return self._second.result().path

    @property
    def first_bundle(self) -> Path:
        """The release that serves at the end."""
        return self._first.path

    def _await_everywhere(self, bundle: Bundle) -> None:
        before = self._listener.tally
        names = set(self._names)

        def answers(_view: FleetView) -> bool:
            heard = self._listener.tally.since(before).predictions
            return names <= {board for board, digest_ in heard if digest_ == bundle.digest}

        if not self._listener.wait_until(answers, timeout_s=30):
            raise crew.StoryError(f"not every board reports predictions of {bundle.manifest.title} after 30 s")


def _kb(size_bytes: int) -> str:
    return f"{size_bytes / 1000:.1f} kB"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
