"""Prune, cluster or quantize one Keras model by training it: what the training child runs, from file to file.

    read → open the data → judge → engine → train → judge → save, and the arrays that the measurements need

Results lie in a folder as files, figures in the answer. What it does NOT do: deliver, convert the schemes, measure
latency; the parent does, so that a crash there costs no training.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tflotilla.host.models import datasets, sources
from tflotilla.host.models.child import allow_fast_kernels, report_progress
from tflotilla.host.models.compression import (
    keras_files,
    masks,
    own_pruning,
    schedule,
    selection,
    tasks,
    training,
    training_data,
)
from tflotilla.host.models.compression.keras_files import KerasModel
from tflotilla.host.models.compression.training import TrainingOptions
from tflotilla.host.models.sources import SourceOptions
from tflotilla.shared.contract import codec
from tflotilla.shared.contract.errors import ConversionError, DatasetError, ModelError, UsageError
from tflotilla.shared.contract.processing import Preprocessing
from tflotilla.shared.inference import preprocessing as preprocessings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tflotilla.host.models.compression.keras_files import Kernel
    from tflotilla.host.models.compression.tasks import Task
    from tflotilla.host.models.compression.training import Engine
    from tflotilla.host.models.compression.training_data import Samples
    from tflotilla.shared.contract.tensors import TensorSpec

#: Files in the folder that is the answer's other half.
BEFORE, AFTER, SPARSE = "before", "after", "sparse.tflite"
VALIDATION, CALIBRATION = "validation.npz", "calibration.npy"
_IMAGE_DIMENSIONS = 4
_MEASURED_BYTES = 512 * 1024**2
_CALIBRATED = 100
_TRIED = 8


class Procedure:
    """One training from file to file; `run_here` of each kind makes one."""

    def __init__(
        self,
        *,
        source: str,
        options: Mapping[str, Any],
        data: str,
        validation: str | None,
        preprocess: str | Mapping[str, Any] | None,
        labels: str | None,
        label_offset: int,
        training: Mapping[str, Any],
        settings: Mapping[str, Any],
        folder: str,
        suffix: str,
    ) -> None:
        self.source = Path(source)
        self.folder = Path(folder)
        self.suffix = suffix
        self.options = codec.decode(SourceOptions, dict(options), "options")
        self.how = codec.decode(TrainingOptions, dict(training), "training")
        self.settings = settings
        self.notes: list[str] = []
        self._data = Path(data)
        self._validation = None if validation is None else Path(validation)
        self._preprocess = preprocess
        self._names = datasets.read_labels(Path(labels)) if labels is not None else ()
        self._offset = label_offset

    def read(self) -> KerasModel:
        """Load the source, repeatably. Raises ModelError."""
        report_progress("loading TensorFlow")
        allow_fast_kernels()
        training.make_repeatable(self.how.seed)
        made = keras_files.read(self.source, self.options)
        self.notes += made.notes
        return made

    def open(self, made: KerasModel) -> None:
        """Open the data, choose the task, and judge the model as it is.

        Raises:
            ModelError, DatasetError, UsageError: they can't be used, or not together.

        """
        report_progress("opening the data")
        self.spec = keras_files.input_spec(made.model, str(self.source))
        shape = tuple(made.model.output_shape)
        self.train, self.validation = self._samples(shape)
        labelled = self.train.labels is not None
        if not labelled and tuple(shape[1:]) != tuple(self.spec.shape[1:]):
            raise DatasetError(
                f"{self._data}: has no labels, and the model's output of {shape[1:]} is not its input of "
                f"{self.spec.shape[1:]}: no autoencoder; labelled data are class folders, a labels.csv, or an .npz "
                "with x and y"
            )
        tried = self.train.tensors(np.arange(min(_TRIED, len(self.train))))
        outputs = np.asarray(made.model(tried, training=False))
        self.task: Task = tasks.choose(
            self.how.loss, keras_files.last_activation(made.model), outputs, labelled=labelled
        )
        self.notes.append(f"loss: {self.task.value}")
        if not made.model.trainable_variables:
            made.model.trainable = True
            for _, layer in keras_files.layers(made.model):
                layer.trainable = True
            self.notes.append("every layer was saved as frozen; all are trained")
        report_progress("judging the model as it is")
        self.before = training.judge(made.model, self.validation, self.task)

    def train_with(self, engine: Engine, made: KerasModel) -> Any:  # noqa: ANN401 - Keras has no types
        """Train, and return the model as the engine hands it over; figures are kept for the answer."""
        identity = {
            "source": hashlib.sha256(self.source.read_bytes()).hexdigest(),
            "data": self.train.digest(),
            "validation": self.validation.digest(),
            "library": f"{made.library} {made.keras.__version__}",
            "settings": codec.encode(dict(self.settings)),
            **{
                name: getattr(self.how, name)
                for name in ("epochs", "batch_size", "learning_rate", "optimizer", "loss", "seed")
            },
        }
        trainer = training.Trainer(engine, made.keras, self.task, self.how, identity)
        if trainer.resumed_at is not None:
            self.notes.append(f"went on from the checkpoint at step {trainer.resumed_at}")
        self.epochs = trainer.run(self.train, self.validation)
        return engine.finish()

    def save(self, made: KerasModel, name: str) -> Path:
        """Save a model into the folder without its optimizer."""
        target = self.folder / f"{name}{self.suffix}"
        keras_files.save(made, target)
        return target

    def write_arrays(self) -> None:
        """Write what the measurements need: validation samples and calibration samples, as real numbers."""
        each = int(np.prod(self.spec.shape)) * 4
        count = min(len(self.validation), max(1, _MEASURED_BYTES // each))
        chosen = np.arange(count) * len(self.validation) // count
        arrays = {"x": self.validation.tensors(chosen)}
        if self.validation.labels is not None:
            arrays["y"] = self.validation.labels[chosen]
        np.savez(self.folder / VALIDATION, **arrays)
        few = min(len(self.train), _CALIBRATED)
        np.save(self.folder / CALIBRATION, self.train.tensors(np.arange(few) * len(self.train) // few))

    def answer(self, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Return what every kind tells."""
        return {
            "task": self.task.value,
            "train_samples": len(self.train),
            "validation_samples": len(self.validation),
            "before": codec.encode(self.before),
            "epochs": codec.encode(tuple(self.epochs)),
            "notes": self.notes,
        } | more

    def _samples(self, output_shape: Sequence[int | None]) -> tuple[Samples, Samples]:
        classes: int | None
        try:
            classes = tasks.check_outputs(output_shape, where=str(self.source))
        except ModelError:
            if self._data.suffix not in (".npy", ".npz"):
                raise
            classes = None
        chosen = _preprocessing(self._preprocess, self.spec)

        def opened(path: Path) -> Samples:
            return training_data.open_samples(
                path, self.spec, classes=classes, preprocessing=chosen, names=self._names, offset=self._offset
            )

        data = opened(self._data)
        if self._validation is None:
            train, held = training_data.split(data, seed=self.how.seed)
            self.notes.append(
                f"validated on {len(held)} of the {len(data)} samples, chosen by the seed, not trained on"
            )
            return train, held
        held = opened(self._validation)
        if (held.labels is None) != (data.labels is None):
            raise DatasetError(f"{self._validation}: one of --data and --validation has labels, the other none")
        return data, held


def prune_here(**arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Prune in this process; `pruning.prune` calls it in a child."""
    work = Procedure(**arguments)
    made = work.read()
    found = keras_files.kernels(made.model)
    pattern = None if work.settings["pattern"] is None else masks.parse_pattern(work.settings["pattern"])
    chosen = choose_kernels(made, found, work.settings, where=str(work.source), doing="pruned")
    if pattern is not None and not any(own_pruning.kernel_pattern(kernel, pattern) for kernel in chosen):
        raise UsageError(f"--pattern {pattern} fits none of the chosen layers; 1x4 is for dense layers")
    work.open(made)
    wanted = codec.decode(schedule.ScheduleOptions, dict(work.settings["schedule"]), "schedule")
    total = work.how.steps_per_epoch(len(work.train)) * work.how.epochs
    planned, notes = schedule.plan(wanted, total)
    work.notes += notes
    work.save(made, BEFORE)
    engine, name = _pruning_engine(made, chosen, planned, pattern, work.notes)
    stripped = KerasModel(model=work.train_with(engine, made), library=made.library, notes=())
    report_progress("judging the pruned model")
    after = training.judge(stripped.model, work.validation, work.task)
    saved = work.save(stripped, AFTER)
    work.write_arrays()
    problem = _write_sparse(saved, work)
    names = {(kernel.path, kernel.name): kernel for kernel in chosen}
    layers = [
        _layer(kernel, names.get((kernel.path, kernel.name)), planned, pattern)
        for kernel in keras_files.kernels(stripped.model)
    ]
    weights = [np.asarray(variable.numpy()) for variable in stripped.model.trainable_variables]
    return work.answer(
        keras=f"{made.library} {made.keras.__version__}",
        engine=name,
        after=codec.encode(after),
        schedule=codec.encode(planned),
        layers=layers,
        parameters=sum(weight.size for weight in weights),
        zeros=sum(masks.zeros(weight) for weight in weights),
        sparse_problem=problem,
    )


def choose_kernels(
    made: KerasModel, found: Sequence[Kernel], settings: Mapping[str, Any], *, where: str, doing: str
) -> tuple[Kernel, ...]:
    """Return the kernels that the user means. Raises UsageError, ModelError."""
    paths = list(dict.fromkeys(kernel.path for kernel in found))
    if not paths:
        kinds = sorted({type(layer).__name__ for _, layer in keras_files.layers(made.model)})
        raise ModelError(f"{where}: no layer has weights that are {doing}; it has {', '.join(kinds)}")
    others = [path for path, _ in keras_files.layers(made.model) if path not in paths]
    chosen = selection.choose(paths, others, wanted=settings["layers"], skipped=settings["skip_layers"], doing=doing)
    return tuple(kernel for kernel in found if kernel.path in chosen)


def _pruning_engine(
    made: KerasModel,
    chosen: Sequence[Kernel],
    planned: schedule.Schedule,
    pattern: masks.Pattern | None,
    notes: list[str],
) -> tuple[Engine, str]:
    if made.library == keras_files.KERAS_2:
        from tflotilla.host.models.compression import tfmot_pruning

        try:
            return tfmot_pruning.TfmotPruning(made.model, chosen, planned, pattern), tfmot_pruning.name()
        except ConversionError as error:
            notes.append(f"{error}; pruned by {own_pruning.NAME} instead")
    return own_pruning.OwnPruning(made.model, chosen, planned, pattern), own_pruning.NAME


def _layer(
    kernel: Kernel, chosen: Kernel | None, planned: schedule.Schedule, pattern: masks.Pattern | None
) -> dict[str, Any]:
    weights = kernel.values()
    held = None if chosen is None else own_pruning.kernel_pattern(kernel, pattern)
    asked = None if chosen is None else planned.final_sparsity
    if held is not None and held.sparsity is not None:
        asked = held.sparsity
    return {
        "layer": kernel.path,
        "weight": kernel.name,
        "kind": type(kernel.layer).__name__,
        "shape": list(weights.shape),
        "weights": int(weights.size),
        "zeros": masks.zeros(weights),
        "asked": asked,
        "pattern": None if held is None else str(held),
        "pattern_held": None if held is None or kernel.axis is None else masks.obeys(weights, held, kernel.axis),
    }


def _write_sparse(saved: Path, work: Procedure) -> str | None:
    """Convert to a file with sparse weights; return why that can't be, when it can't."""
    import tensorflow as tf

    report_progress("encoding the weights sparsely")
    try:
        model = sources.load(saved, sources.detect(saved), SourceOptions(allow_code=work.options.allow_code))
        converter = model.converter()
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        (work.folder / SPARSE).write_bytes(converter.convert())
    except Exception as error:  # noqa: BLE001 - the converter raises whatever its passes raise
        return " ".join(str(error).split())[:240]
    return None


def _preprocessing(given: str | Mapping[str, Any] | None, spec: TensorSpec) -> Preprocessing | None:
    if given is None or not isinstance(given, str):
        return None if given is None else codec.decode(Preprocessing, dict(given), "preprocessing")
    return preprocessings.parse(given, channels=spec.shape[-1] if len(spec.shape) == _IMAGE_DIMENSIONS else None)
