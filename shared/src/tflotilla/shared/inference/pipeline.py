"""The one hot loop: tensors in, answer out, with a time stamp at each stage. Worker, evaluation and benchmark share it.

Stages, as reported: `preprocess` is image to tensor and the copy into the model, `invoke` is the runtime's call alone
(what benchmark_model measures), `postprocess` is the copy out and the answer. What it does NOT do: decode images, wait
for inputs, report.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from tflotilla.shared.contract.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from tflotilla.shared.contract.messages import Candidate, Stage
    from tflotilla.shared.inference.postprocessing import Answerer
    from tflotilla.shared.inference.preprocessing import Preprocessor
    from tflotilla.shared.inference.runtime import LoadedModel, Tensor


class Result(NamedTuple):
    """One inference. A named tuple, because building a frozen dataclass costs four times as much, each time."""

    top: tuple[Candidate, ...]
    preprocess_ns: int
    invoke_ns: int
    postprocess_ns: int

    def stages_ns(self, decode_ns: int = 0) -> dict[Stage, int]:
        """Return every stage's nanoseconds, as messages carry them; `total` is their sum."""
        return {
            "decode": decode_ns,
            "preprocess": self.preprocess_ns,
            "invoke": self.invoke_ns,
            "postprocess": self.postprocess_ns,
            "total": decode_ns + self.preprocess_ns + self.invoke_ns + self.postprocess_ns,
        }


class Pipeline:
    """A loaded model between its preprocessing and its postprocessing. Not thread-safe."""

    def __init__(self, loaded: LoadedModel, preprocessor: Preprocessor | None, answerer: Answerer) -> None:
        """Bind the parts; `preprocessor` is None for models that take no image."""
        self._preprocessor = preprocessor
        # Bound once: seven attribute look-ups less in every inference.
        self._set_inputs = loaded.set_inputs
        self._invoke = loaded.invoke
        self._get_outputs = loaded.get_outputs
        self._answer = answerer.answer

    def infer(self, tensors: tuple[Tensor, ...], *, started_ns: int | None = None) -> Result:
        """Run the model on ready tensors.

        Args:
            tensors: one per input, of the input's dtype and shape.
            started_ns: `perf_counter_ns` when the preparation of `tensors` began; it then counts as `preprocess`.

        Raises:
            ValueError: a tensor doesn't fit its input.
            ModelError: a kernel failed, or a score is not a number.

        """
        start = started_ns or perf_counter_ns()
        self._set_inputs(tensors)
        ready = perf_counter_ns()
        self._invoke()
        done = perf_counter_ns()
        top = self._answer(self._get_outputs())
        return Result(top, ready - start, done - ready, perf_counter_ns() - done)

    def infer_image(self, image: Image.Image) -> Result:
        """Preprocess a decoded image and run the model on it.

        Raises:
            ModelError: as `infer`; or the model takes no image.

        """
        if self._preprocessor is None:
            message = "this model has no preprocessing: it takes tensors, not images"
            raise ModelError(message)
        start = perf_counter_ns()
        return self.infer((self._preprocessor.prepare(image),), started_ns=start)
