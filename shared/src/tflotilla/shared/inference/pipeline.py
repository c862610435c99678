"""The one hot loop: tensors in, answer out, with a time stamp at each stage. Worker, evaluation and benchmark share it.

Stages, as reported: `preprocess` is image to tensor and the copy into the model, `invoke` is the runtime's call alone
(what benchmark_model measures), `postprocess` is the copy out and the answer.

`infer` answers at once. `submit` only keeps the outputs, and `collect` answers all of them together: after milliseconds
of invoke the caches hold nothing of ours, and the same answer costs ten times what it costs in a row of others.

What it does NOT do: decode images, wait for inputs, report.
"""

from __future__ import annotations

import math
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from tflotilla.shared.contract.errors import ModelError
from tflotilla.shared.inference.runtime import SupportsDirectCalls

if TYPE_CHECKING:
    from PIL import Image

    from tflotilla.shared.contract.messages import Candidate, Stage
    from tflotilla.shared.inference.postprocessing import Answerer
    from tflotilla.shared.inference.preprocessing import Preprocessor
    from tflotilla.shared.inference.runtime import DirectCalls, LoadedModel, Tensor

    #: outputs or a finished answer, tag, and the stamps: start, ready, done, copied.
    Pending = tuple[Any, Any, int, int, int, int]

#: Outputs larger than this are answered at once: keeping them would cost more memory than the caches are worth.
_DEFERRED_BYTES = 16 << 10


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


class Collected(NamedTuple):
    """A submitted inference with its answer, or the error that the answer was."""

    tag: Any
    #: `perf_counter_ns` when its outputs were there.
    ended_ns: int
    result: Result | None
    error: ModelError | None


class Submit(Protocol):
    """What `Pipeline.submit` is."""

    def __call__(self, tensors: tuple[Tensor, ...], tag: object = None, started_ns: int = 0) -> int:
        """See `Pipeline`."""


class Pipeline:
    """A loaded model between its preprocessing and its postprocessing. Not thread-safe.

    `submit(tensors, tag, started_ns)` runs the model, keeps its outputs for `collect`, which returns them with their
    tags, and returns `perf_counter_ns` when they were there. `started_ns` is `perf_counter_ns` when the preparation of
    `tensors` began; it then counts as `preprocess`. Raises ValueError for a tensor that doesn't fit its input,
    ModelError for a kernel that failed.
    """

    def __init__(self, loaded: LoadedModel, preprocessor: Preprocessor | None, answerer: Answerer) -> None:
        """Bind the parts; `preprocessor` is None for models that take no image."""
        self._preprocessor = preprocessor
        self._set_inputs = loaded.set_inputs
        self._invoke = loaded.invoke
        self._get_outputs = loaded.get_outputs
        self._answer = answerer.answer
        self._answer_many = answerer.answer_many
        self._pending: list[Pending] = []
        direct = loaded.direct if isinstance(loaded, SupportsDirectCalls) else None
        self._deferred = _is_small(loaded)
        self.submit: Submit = (
            _submit_directly(direct, loaded, self._pending) if direct is not None and self._deferred else self._submit
        )

    @property
    def pending(self) -> int:
        """How many submitted inferences `collect` would return."""
        return len(self._pending)

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
        start = perf_counter_ns()
        return self.infer((self._prepare(image),), started_ns=start)

    def submit_image(self, image: Image.Image, tag: object = None) -> int:
        """Preprocess a decoded image, run the model on it and keep the outputs for `collect`.

        Raises:
            ModelError: as `submit`; or the model takes no image.

        """
        start = perf_counter_ns()
        return self.submit((self._prepare(image),), tag, start)

    def collect(self) -> list[Collected]:
        """Answer what was submitted since the last time, in order. Its time counts as their `postprocess`."""
        pending = self._pending[:]
        self._pending.clear()
        begin = perf_counter_ns()
        many = self._answer_many([one[0] for one in pending]) if self._deferred else None
        if many is None:
            return self._collect_each(pending)
        share = (perf_counter_ns() - begin) // max(1, len(pending))
        # tuple.__new__ is what the named tuples do themselves, three times as slowly.
        new = tuple.__new__
        return [
            new(
                Collected,
                (tag, copied, new(Result, (top, ready - start, done - ready, copied - done + share)), None),
            )
            for top, (_, tag, start, ready, done, copied) in zip(many, pending)  # noqa: B905 - an answer for each
        ]

    def _collect_each(self, pending: list[Pending]) -> list[Collected]:
        answer, clock = self._answer, perf_counter_ns
        collected = []
        begin = clock()
        for outputs, tag, start, ready, done, copied in pending:
            try:
                top = answer(outputs) if self._deferred else outputs
            except ModelError as error:
                collected.append(Collected(tag, copied, None, error))
                begin = clock()
                continue
            # One answer's end is the next one's begin: what stands between them is counted too.
            end = clock()
            result = Result(top, ready - start, done - ready, copied - done + end - begin)
            collected.append(Collected(tag, copied, result, None))
            begin = end
        return collected

    def _prepare(self, image: Image.Image) -> Tensor:
        if self._preprocessor is None:
            message = "this model has no preprocessing: it takes tensors, not images"
            raise ModelError(message)
        return self._preprocessor.prepare(image)

    def _submit(self, tensors: tuple[Tensor, ...], tag: object = None, started_ns: int = 0) -> int:
        start = started_ns or perf_counter_ns()
        self._set_inputs(tensors)
        ready = perf_counter_ns()
        self._invoke()
        done = perf_counter_ns()
        outputs = self._get_outputs() if self._deferred else self._answer(self._get_outputs())
        copied = perf_counter_ns()
        self._pending.append((outputs, tag, start, ready, done, copied))
        return copied


def _submit_directly(direct: DirectCalls, loaded: LoadedModel, pending: list[Pending]) -> Submit:
    # A closure over the runtime's own calls: with cold caches each frame and each attribute costs microseconds.
    set_tensor, input_index, invoke, get_tensor, output_index = direct
    clock, append = perf_counter_ns, pending.append

    def submit(tensors: tuple[Tensor, ...], tag: object = None, started_ns: int = 0) -> int:
        start = started_ns or clock()
        (tensor,) = tensors
        try:
            set_tensor(input_index, tensor)
        except ValueError:
            # Another batch than the last time, perhaps: this resizes, or says better what is wrong.
            loaded.set_inputs(tensors)
        ready = clock()
        try:
            invoke()
        except RuntimeError as error:
            message = f"the model failed while running: {' '.join(str(error).split())}"
            raise ModelError(message) from error
        done = clock()
        outputs = (get_tensor(output_index),)
        copied = clock()
        append((outputs, tag, start, ready, done, copied))
        return copied

    return submit


def _is_small(loaded: LoadedModel) -> bool:
    size = 0
    for spec in loaded.outputs:
        # A dynamic batch is mostly 1; of other dynamic dimensions nobody knows.
        shape = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
        if -1 in shape or spec.dtype == "string":
            return False
        size += math.prod(shape) * np.dtype(spec.dtype).itemsize
    return size <= _DEFERRED_BYTES
