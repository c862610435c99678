"""The child that runs a candidate beside the bundle that serves: ShadowSpec in, ShadowReport out, nothing published.

Both answer the same inputs of the board's own source, which is opened anew, one model after the other: only one of
them is in memory beside the worker's. How alike two answers are is `agreement`'s to say.

Rules it keeps: whatever can't be compared is a report with the reason, and no failure; the worker goes first on every
core; it ends in time, with what is done by then. It may be killed by a model: the supervisor reads a missing report as
a crash. What it does NOT do: judge the candidate.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tflotilla.device import child, scheduling
from tflotilla.device.bundle_folder import BundleFolder
from tflotilla.device.reports import ShadowSpec
from tflotilla.shared.contract.deployment import ShadowReport
from tflotilla.shared.contract.errors import DatasetError, ModelError, TflotillaError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tflotilla.device.agreement import Agreement, Seen
    from tflotilla.device.sources import Item, Source
    from tflotilla.shared.contract.agent_config import InferenceConfig
    from tflotilla.shared.inference.preprocessing import Preprocessor
    from tflotilla.shared.inference.runtime import Tensor

#: A source that has given nothing for so long has nothing: files come by the dozen, or not at all.
_PATIENCE_S = 5.0
_IDLE_S = 0.05
#: Inputs that are bytes in memory, a camera's, are kept until both have seen them: so many and no more.
_KEPT_BYTES = 32 << 20
_NICE = 10


def main() -> int:
    """Answer one ShadowSpec with one ShadowReport, behind everybody else."""
    scheduling.stand_back()
    os.nice(_NICE)
    return child.answer_once(ShadowSpec, compare)


def compare(spec: ShadowSpec, *, clock: Callable[[], float] = time.monotonic) -> ShadowReport:
    """Let both answer; errors of ours become the reason."""
    try:
        return _compare(spec, clock)
    except TflotillaError as error:
        return ShadowReport(inputs=0, agreed=0, reason=str(error))


def _compare(spec: ShadowSpec, clock: Callable[[], float]) -> ShadowReport:
    until = clock() + spec.at_most_s
    from tflotilla.device import agreement
    from tflotilla.device.sources import open_source

    champion, challenger = (BundleFolder.open(Path(path)) for path in (spec.champion, spec.challenger))
    objection = agreement.objection(champion.manifest, challenger.manifest)
    if objection is not None:
        return ShadowReport(inputs=0, agreed=0, reason=objection)
    comparing = agreement.Agreement(champion.manifest)
    runner = _Runner(champion, spec.champion_inference, comparing)
    source = open_source(spec.source, runner.model.inputs)
    try:
        images = source.gives_images
        runner.prepare(images=images)
        # Half of the time each, and what loading took counts.
        half = until - (until - clock()) / 2
        items: list[Item] = []
        before: list[Seen | None] = []
        kept_bytes = 0
        while len(items) < spec.inputs and kept_bytes < _KEPT_BYTES and clock() < half:
            item = _next(source, clock, half)
            if item is None:
                break
            items.append(item)
            before.append(runner.see(item))
            kept_bytes += len(item.image) if isinstance(item.image, bytes) else 0
    finally:
        source.close()
    if not items:
        return ShadowReport(inputs=0, agreed=0, reason=f"no input came from the board's source ({spec.source.kind})")
    wanted = runner.inputs
    del runner
    runner = _Runner(challenger, spec.challenger_inference, comparing)
    if not images and runner.inputs != wanted:
        return ShadowReport(inputs=0, agreed=0, reason="the candidate takes other tensors than what serves")
    runner.prepare(images=images)
    after: list[Seen | None] = []
    for item in items:
        if clock() >= until:
            break
        after.append(runner.see(item))
    return comparing.report(before, after)


def _next(source: Source, clock: Callable[[], float], until: float) -> Item | None:
    patience = min(clock() + _PATIENCE_S, until)
    while True:
        try:
            item = source.next_item()
        except DatasetError:
            item = None
        if item is not None or clock() >= patience:
            return item
        time.sleep(_IDLE_S)


class _Runner:
    """One bundle, loaded as it is served."""

    def __init__(self, folder: BundleFolder, inference: InferenceConfig, comparing: Agreement) -> None:
        from tflotilla.device import loading
        from tflotilla.shared.inference.postprocessing import Answerer

        manifest = folder.manifest
        self._title = manifest.title
        self._comparing = comparing
        self._how = manifest.preprocessing
        self._preprocessor: Preprocessor | None = None
        self.model = loading.load(folder, inference).model
        self._answerer = Answerer(manifest.postprocessing, self.model.outputs, folder.labels())
        # The first run is a runtime's slowest.
        self.model.set_inputs(loading.zeros(self.model.inputs))
        self.model.invoke()

    @property
    def inputs(self) -> list[tuple[tuple[int, ...], str]]:
        """Shapes and types of the inputs."""
        return [(spec.shape, spec.dtype) for spec in self.model.inputs]

    def prepare(self, *, images: bool) -> None:
        """Get ready for images, or for tensors. Raises ModelError where the bundle takes no images."""
        if not images:
            return
        from tflotilla.shared.inference.preprocessing import Preprocessor

        if self._how is None or len(self.model.inputs) != 1:
            message = f"{self._title} takes no images, and the board's source gives nothing else"
            raise ModelError(message)
        self._preprocessor = Preprocessor(self._how, self.model.inputs[0])

    def see(self, item: Item) -> Seen | None:
        """Answer one input; None where the input itself can't be used."""
        from tflotilla.device.agreement import Seen

        model, begin, answer = self.model, time.perf_counter_ns(), None
        try:
            model.set_inputs(self._tensors(item))
            model.invoke()
            outputs = model.get_outputs()
            top = self._answerer.answer(outputs)
            taken_ns = time.perf_counter_ns() - begin
            answer = self._comparing.answer(outputs, model.outputs, top, self._answerer.label)
        except DatasetError:
            return None
        except (ModelError, ValueError):
            # It fails on this input, or answers NaN.
            taken_ns = time.perf_counter_ns() - begin
        return Seen(answer=answer, taken_ns=taken_ns)

    def _tensors(self, item: Item) -> tuple[Tensor, ...]:
        if item.image is None or self._preprocessor is None:
            return item.tensors or ()
        from tflotilla.shared.inference.images import open_image

        return (self._preprocessor.prepare(open_image(item.image, draft_size=self._preprocessor.draft_size)),)


if __name__ == "__main__":
    sys.exit(main())
