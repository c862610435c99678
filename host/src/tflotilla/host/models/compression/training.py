"""The one training loop: batches in a seeded order, checkpoints, logs, progress. Runs in the training child only.

Rules it keeps: what happens at a step depends on the seed and the step alone, so a training that is killed and taken up
again ends with the same weights, bit by bit; validation is measured on the model as it would be handed over.
What it does NOT do: prune, cluster or quantize; an engine does.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tflotilla.host.models.child import report_progress
from tflotilla.host.models.compression import checkpoints, keras_files, tasks, training_data
from tflotilla.host.models.compression.event_log import EventLog
from tflotilla.host.models.compression.tasks import Task
from tflotilla.shared.contract.errors import ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.models.compression.training_data import Samples

OPTIMIZERS = ("adam", "sgd", "rmsprop")
_PROGRESS_EVERY_S = 0.5
_CHECKPOINT_EVERY_S = 60.0
_LOGGED_STEPS = 20
_JUDGED_AT_ONCE = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How to fine-tune; `checkpoint_every` is in steps, None means after every epoch (and after every minute)."""

    epochs: int = 2
    batch_size: int = 32
    learning_rate: float = 1e-3
    optimizer: str = "adam"
    loss: str = "auto"
    seed: int = 0
    checkpoint: str | None = None
    checkpoint_every: int | None = None
    logs: str | None = None

    def check(self) -> None:
        """Refuse what can't be trained with. Raises UsageError."""
        for option, value in (("epochs", self.epochs), ("batch-size", self.batch_size)):
            if value < 1:
                raise UsageError(f"--{option} {value}: expected at least 1")
        if self.checkpoint_every is not None and self.checkpoint_every < 1:
            raise UsageError(f"--checkpoint-every {self.checkpoint_every}: expected at least 1 step")
        if not (0 < self.learning_rate < math.inf):
            raise UsageError(f"--learning-rate {self.learning_rate:g}: expected a number above 0, like 0.001")
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"--optimizer {self.optimizer!r}: expected one of {', '.join(OPTIMIZERS)}")
        if self.loss not in tasks.LOSSES:
            raise UsageError(f"--loss {self.loss!r}: expected one of {', '.join(tasks.LOSSES)}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: expected 0 to {2**32 - 1}")

    def steps_per_epoch(self, count: int) -> int:
        """Return how many batches an epoch of `count` samples has."""
        return -(-count // self.batch_size)


class Engine(Protocol):
    """What is done to a model while it trains."""

    @property
    def model(self) -> Any:  # noqa: ANN401 - Keras has no types
        """The model that trains."""

    def before_batch(self, step: int) -> None:
        """Hear that the batch of `step`, counted from 1, comes next."""

    def after_batch(self) -> None:
        """Hear that the batch is done."""

    def end_epoch(self) -> None:
        """Make the model what it would be if it were handed over now."""

    def variables(self) -> Sequence[Any]:
        """Return what a checkpoint holds beside the model's variables."""

    def scalars(self, step: int) -> Mapping[str, float]:
        """Return what the logs show beside loss and accuracy."""

    def finish(self) -> Any:  # noqa: ANN401 - Keras has no types
        """Return the model as it is handed over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a model is worth on the validation samples; `accuracy` is None for an autoencoder."""

    loss: float
    accuracy: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch's figures."""

    number: int
    loss: float
    accuracy: float | None
    validation: Judged


def make_repeatable(seed: int) -> None:
    """Seed everything that draws, and let TensorFlow add up in the same order every time."""
    import random

    import keras
    import tensorflow as tf

    random.seed(seed)
    keras.utils.set_random_seed(seed)
    with contextlib.suppress(RuntimeError):  # once per process is enough
        tf.config.experimental.enable_op_determinism()


def judge(model: Any, data: Samples, task: Task) -> Judged:  # noqa: ANN401 - Keras has no types
    """Return loss and accuracy on samples.

    Raises:
        ModelError: what comes out is not finite.

    """
    import tensorflow as tf

    def infer_eagerly(tensors: Any) -> Any:  # noqa: ANN401 - TensorFlow has no types
        return model(tensors, training=False)

    infer = tf.function(infer_eagerly, reduce_retracing=True)
    total, hits = 0.0, 0
    for tensors, indices in training_data.batches(data, _JUDGED_AT_ONCE):
        outputs = np.asarray(infer(tf.constant(tensors)), dtype=np.float64)
        if not np.isfinite(outputs).all():
            raise ModelError("the model answers NaN or infinity; do its weights hold any, or was training unstable?")
        if data.labels is None:
            total += float(np.mean((outputs - tensors) ** 2, axis=tuple(range(1, outputs.ndim))).sum())
        else:
            labels = data.labels[indices]
            total += _loss_sum(task, outputs, labels)
            hits += tasks.right(task, outputs, labels)
    return Judged(
        loss=total / len(data), accuracy=hits / len(data) if data.labels is not None else None, samples=len(data)
    )


def _loss_sum(task: Task, outputs: Any, labels: Any) -> float:  # noqa: ANN401 - arrays
    flat = outputs.reshape(len(outputs), -1)
    tiny = 1e-7
    if task in (Task.BINARY, Task.BINARY_FROM_LOGITS):
        share = flat if task is Task.BINARY else 1 / (1 + np.exp(-np.clip(flat, -80, 80)))
        share = np.clip(share, tiny, 1 - tiny)
        wanted = tasks.targets(task, labels, (flat.shape[1],))
        return float(-(wanted * np.log(share) + (1 - wanted) * np.log(1 - share)).mean(axis=1).sum())
    if task is Task.CLASSES_FROM_LOGITS:
        shifted = flat - flat.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    else:
        logs = np.log(np.clip(flat / np.maximum(flat.sum(axis=1, keepdims=True), tiny), tiny, 1))
    return float(-logs[np.arange(len(flat)), labels].sum())


class Trainer:
    """Trains an engine's model."""

    def __init__(
        self,
        engine: Engine,
        keras: Any,  # noqa: ANN401 - keras or tf_keras
        task: Task,
        options: TrainingOptions,
        identity: Mapping[str, Any],
    ) -> None:
        """Compile, and take up the checkpoint when there is one.

        Raises:
            InputError, UsageError: the checkpoint can't be read, or is of another training.

        """
        self._engine = engine
        self._task = task
        self._options = options
        self._identity = identity
        self._log = None if options.logs is None else EventLog(Path(options.logs))
        self._optimizer = _optimizer(keras, options)
        engine.model.compile(
            optimizer=self._optimizer, loss=_loss(keras, task), metrics=_metrics(keras, task), jit_compile=False
        )
        self._optimizer.build(engine.model.trainable_variables)
        self._per_call = {} if keras.__name__ == keras_files.KERAS_3 else {"reset_metrics": True}
        #: Steps done; sums over the epoch's samples so far; figures of whole epochs.
        self._step = 0
        self._sums = {"loss": 0.0, "accuracy": 0.0, "samples": 0.0}
        self._epochs: list[dict[str, Any]] = []
        self.resumed_at = self._restore()
        self._told = self._saved = time.monotonic()

    def run(self, train: Samples, validation: Samples) -> list[Epoch]:
        """Train all epochs that are left and return the figures of all.

        Raises:
            DatasetError, ModelError: samples or losses are no numbers.
            InputError: a checkpoint or log can't be written.

        """
        per_epoch = self._options.steps_per_epoch(len(train))
        for epoch in range(self._step // per_epoch, self._options.epochs):
            order = training_data.order(len(train), seed=self._options.seed, epoch=epoch)
            for batch in range(self._step - epoch * per_epoch, per_epoch):
                indices = order[batch * self._options.batch_size : (batch + 1) * self._options.batch_size]
                self._train_on(train, indices)
                self._report(epoch, batch + 1, per_epoch)
                every = self._options.checkpoint_every
                due = every is not None and self._step % every == 0
                if batch + 1 < per_epoch and (due or time.monotonic() - self._saved > _CHECKPOINT_EVERY_S):
                    self._save()
            self._end_epoch(epoch, validation)
        return [_epoch(number, figures) for number, figures in enumerate(self._epochs, 1)]

    def _train_on(self, train: Samples, indices: Any) -> None:  # noqa: ANN401 - an array
        tensors = train.tensors(indices)
        if train.labels is None:
            wanted: Any = tensors
        else:
            wanted = tasks.targets(self._task, train.labels[indices], self._engine.model.output_shape[1:])
        self._engine.before_batch(self._step + 1)
        if not self._per_call:
            self._engine.model.reset_metrics()
        found = self._engine.model.train_on_batch(tensors, wanted, return_dict=True, **self._per_call)
        self._engine.after_batch()
        self._step += 1
        loss = float(found["loss"])
        if not math.isfinite(loss):
            raise ModelError(self._diverged(f"the loss is {loss}"))
        for name in ("loss", "accuracy"):
            self._sums[name] += float(found.get(name, 0.0)) * len(indices)
        self._sums["samples"] += len(indices)

    def _diverged(self, what: str) -> str:
        return (
            f"{what} at step {self._step}: the learning rate of {self._options.learning_rate:g} is too high for this "
            "model, or its weights or the data hold NaN"
        )

    def _end_epoch(self, epoch: int, validation: Samples) -> None:
        self._engine.end_epoch()
        for variable in self._engine.model.trainable_variables:
            if not np.isfinite(variable.numpy()).all():
                raise ModelError(self._diverged(f"{variable.name} holds NaN or infinity"))
        judged = judge(self._engine.model, validation, self._task)
        means = self._means()
        self._epochs.append({**means, "validation": {name: getattr(judged, name) for name in judged.__slots__}})
        self._sums = dict.fromkeys(self._sums, 0.0)
        said = f"epoch {epoch + 1} of {self._options.epochs} done: {_words(means)}, validation loss {judged.loss:.4f}"
        if judged.accuracy is not None:
            said += f", accuracy {judged.accuracy:.2%}"
        report_progress(said + self._sparsity())
        if self._log is not None:
            scalars = {"validation_loss": judged.loss}
            if judged.accuracy is not None:
                scalars["validation_accuracy"] = judged.accuracy
            self._log.add(self._step, dict(self._engine.scalars(self._step)) | means | scalars)
        self._save()

    def _report(self, epoch: int, batch: int, per_epoch: int) -> None:
        if self._log is not None and self._step % max(1, per_epoch // _LOGGED_STEPS) == 0 and batch < per_epoch:
            self._log.add(self._step, dict(self._engine.scalars(self._step)) | self._means())
        if time.monotonic() - self._told > _PROGRESS_EVERY_S:
            self._told = time.monotonic()
            report_progress(
                f"epoch {epoch + 1} of {self._options.epochs}, batch {batch} of {per_epoch}: "
                f"{_words(self._means())}{self._sparsity()}"
            )

    def _means(self) -> dict[str, float]:
        count = max(1.0, self._sums["samples"])
        names = ("loss", "accuracy") if self._task.classifies else ("loss",)
        return {name: self._sums[name] / count for name in names}

    def _sparsity(self) -> str:
        asked = self._engine.scalars(self._step).get("sparsity_asked")
        return "" if asked is None else f", sparsity {asked:.0%}"

    def _variables(self) -> list[Any]:
        """Return everything that the next step depends on, in an order that the same model repeats."""
        model = self._engine.model
        found = [*model.variables, *self._optimizer.variables, *self._engine.variables()]
        return [keras_files.raw(variable) for variable in [*found, *keras_files.random_states(model)]]

    def _save(self) -> None:
        if self._options.checkpoint is None:
            return
        arrays = [variable.numpy() for variable in self._variables()]
        progress = {"step": self._step, "sums": self._sums, "epochs": self._epochs}
        checkpoints.save(Path(self._options.checkpoint), arrays, progress, self._identity)
        self._saved = time.monotonic()

    def _restore(self) -> int | None:
        if self._options.checkpoint is None:
            return None
        found = checkpoints.load(Path(self._options.checkpoint), self._identity)
        if found is None:
            return None
        variables = self._variables()
        if [v.shape.as_list() for v in variables] != [list(array.shape) for array in found.arrays]:
            raise UsageError(f"{self._options.checkpoint}: the checkpoint is of another model; remove it to begin anew")
        for variable, array in zip(variables, found.arrays, strict=True):
            variable.assign(array)
        self._step = int(found.progress["step"])
        self._sums = dict(found.progress["sums"])
        self._epochs = list(found.progress["epochs"])
        report_progress(f"going on from the checkpoint at step {self._step}")
        return self._step


def _words(means: Mapping[str, float]) -> str:
    accuracy = f", accuracy {means['accuracy']:.2%}" if "accuracy" in means else ""
    return f"loss {means['loss']:.4f}{accuracy}"


def _epoch(number: int, figures: Mapping[str, Any]) -> Epoch:
    judged = Judged(**figures["validation"])
    return Epoch(number=number, loss=figures["loss"], accuracy=figures.get("accuracy"), validation=judged)


def _optimizer(keras: Any, options: TrainingOptions) -> Any:  # noqa: ANN401 - Keras has no types
    made = {
        "adam": lambda: keras.optimizers.Adam(options.learning_rate),
        "sgd": lambda: keras.optimizers.SGD(options.learning_rate, momentum=0.9),
        "rmsprop": lambda: keras.optimizers.RMSprop(options.learning_rate),
    }
    return made[options.optimizer]()


def _loss(keras: Any, task: Task) -> Any:  # noqa: ANN401 - Keras has no types
    logits = task in (Task.CLASSES_FROM_LOGITS, Task.BINARY_FROM_LOGITS)
    if task is Task.RECONSTRUCTION:
        return keras.losses.MeanSquaredError()
    if task in (Task.BINARY, Task.BINARY_FROM_LOGITS):
        return keras.losses.BinaryCrossentropy(from_logits=logits)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)


def _metrics(keras: Any, task: Task) -> list[Any]:  # noqa: ANN401 - Keras has no types
    if task is Task.RECONSTRUCTION:
        return []
    if task in (Task.BINARY, Task.BINARY_FROM_LOGITS):
        return [
            keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0 if task is Task.BINARY_FROM_LOGITS else 0.5)
        ]
    return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
