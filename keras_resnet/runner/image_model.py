"""What all models of images share: the runtime, the input, the outputs."""

import math
import os
import time
import typing

from keras_resnet.runner.delegates import choose_delegate, load_delegate
from keras_resnet.runner.errors import UserError, open_file, read_at_most, user_errors
from keras_resnet.runner.images import prepare, read_image
from keras_resnet.runner.model_file import (
    MAX_LABEL_BYTES,
    ModelFile,
    parse_sparse_labels,
    read_model,
)
from keras_resnet.runner.pipeline import milliseconds_since
from keras_resnet.runner.preprocessing import (
    BOXES,
    MASKS,
    Preprocessing,
    output_of,
    parse_preprocessing,
)
from keras_resnet.runner.runtime import (
    build_interpreter,
    default_threads,
    load_runtime,
    silenced_stderr,
)

if typing.TYPE_CHECKING:
    import numpy as np

AnyPath = typing.Union[str, os.PathLike]
Numbers = typing.Sequence[float]
POSTPROCESS = "TFLite_Detection_PostProcess"
# What a model may do: what it gives, and what runs it.
TASKS = {
    "classify": ("scores of classes or features", "Classifier"),
    "detect": ("boxes", "Detector"),
    "segment": ("a mask", "Segmenter"),
}


def task_of(file):
    """Returns which of `TASKS` a model does, by its `ModelFile`.

    Our own files say it. Of others, those whose operator finds boxes detect, and those
    with one output of a class index for each pixel segment, such as Coral's DeepLab.
    """
    output = output_of(file.preprocessing)
    if output in (BOXES, MASKS):
        return "detect" if output == BOXES else "segment"
    if POSTPROCESS in file.custom_operators and len(file.outputs) == 4:
        return "detect"
    if len(file.outputs) == 1:
        shape = file.outputs[0]
        shape = shape[:3] if shape[3:] == (1,) else shape
        if len(shape) == 3 and min(shape[1:]) > 1:
            return "segment"
    return "classify"


class ImageModel:
    """A TFLite model of images, ready to run.

    Attributes:
        path: str, of the model.
        labels: list of str, one per class, or None.
        classes: int, the number of classes, or None where the file does not tell.
        input_shape: (1, height, width, 3).
        preprocessing: `Preprocessing`, or None where the model carries none.
        runtime: str, name and version of the TFLite runtime.
        delegate: str, the delegate that runs the model, or "none" for the CPU.
        idle_delegate: bool, whether the delegate left all of the model to the CPU.
        threads: int, CPU threads.
        load_milliseconds: float, the time to read, check and build the model, without
            the imports of Python.
    """

    task = ""  # of `TASKS`
    output_counts: typing.Tuple[int, ...] = (1,)
    path: str
    labels: typing.Any
    classes: typing.Any
    input_shape: typing.Tuple[int, ...]
    preprocessing: typing.Optional[Preprocessing]
    runtime: str
    delegate: str
    idle_delegate: bool
    threads: int
    load_milliseconds: float

    def __init__(
        self,
        model,
        threads=None,
        delegate="auto",
        delegate_options=None,
        normalization=None,
        bgr=False,
    ):
        """Loads a model; `Classifier` describes the arguments.

        `model` may also be the `ModelFile` of a file that was read already.
        """
        interpreter_class, self.runtime = load_runtime()
        self.threads = threads or default_threads()
        self._bgr = bgr
        start = time.perf_counter()
        file = model if isinstance(model, ModelFile) else read_model(os.fspath(model))
        self._file, self.path = file, file.path
        task = task_of(file)
        if task != self.task:
            gives, name = TASKS[task]
            raise UserError(
                f"{self.path}: gives {gives}, and not {TASKS[self.task][0]}; use {name}"
            )
        self._build(interpreter_class, file, delegate, delegate_options or {})
        with user_errors(self.path, ValueError):
            self._check_input()
        self.preprocessing = None
        if file.preprocessing is not None:
            how = self._read_inside(parse_preprocessing, self.input_shape[1:3])
            self.preprocessing = how
        if len(self._outputs) not in self.output_counts:
            expected = " or ".join(map(str, self.output_counts))
            raise UserError(
                f"{self.path}: has 1 inputs and {len(self._outputs)} outputs, expected "
                f"1 and {expected}"
            )
        where = self.path
        # A quantized input needs no metadata: its scale and zero point say the same.
        is_float = "float" in self._input["dtype"].__name__
        if normalization is None and file.mean and is_float:
            where = f"{self.path}: its metadata is damaged"
            normalization = (file.mean, file.std)
        with user_errors(where, ValueError):
            self._lookup = normalization and self._input_values(*normalization)
        self.load_milliseconds = milliseconds_since(start)

    def _read_inside(self, parse, *arguments):
        """Returns what a function reads in the model's preprocessing.json."""
        try:
            return parse(self._file.preprocessing, *arguments)
        except UserError as error:
            raise UserError(
                f"{self.path}: preprocessing.json inside: {error}"
            ) from error

    def _read_labels(self, path, parse):
        """Returns the labels of the model, or of the file at `path` if one is given.

        Args:
            path: of a label file, or None.
            parse: function of the bytes, and of whether they are of a file of its own.

        Raises:
            UserError: the file is missing or damaged, or has not one for each class.
        """
        data = self._file.labels
        with user_errors(path or f"{self.path}: labels inside", ValueError, OSError):
            if path:
                with open_file(path) as file:
                    data = read_at_most(file, MAX_LABEL_BYTES)
            if data is None:
                return None
            labels = parse(data, bool(path))
            if self.classes not in (None, len(labels)):
                raise ValueError(
                    f"{len(labels)} labels for a model of {self.classes} classes; pass "
                    "the label file of this model with --labels"
                )
        return labels

    def _build(self, interpreter_class, file, delegate, options):
        """Builds the interpreter, with a delegate if there is one."""
        compiled = "edgetpu-custom-op" in file.custom_operators
        with user_errors(self.path, ValueError):
            chosen = choose_delegate(delegate, options, compiled)
            loaded = chosen and load_delegate(chosen, interpreter_class, self.runtime)
        self.delegate = chosen.name if chosen else "none"
        runner = self.runtime + (f" with delegate {chosen.name}" if chosen else "")
        self._runner = f"{self.path}: {runner}"
        with user_errors(self._runner, RuntimeError, ValueError):
            self._interpreter = build_interpreter(
                interpreter_class, self.path, self.threads, loaded
            )
            # Each part that a delegate takes becomes one more operator. XNNPACK, the
            # runtime's own delegate, comes only when the tensors get their memory.
            list_operators = getattr(self._interpreter, "_get_ops_details", None)
            self.idle_delegate = bool(
                chosen and list_operators and len(list_operators()) == file.operators
            )
            with silenced_stderr():
                self._interpreter.allocate_tensors()

    def _check_input(self):
        """Raises ValueError for a model that does not take one RGB image."""
        inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        if len(inputs) != 1:
            raise ValueError(f"has {len(inputs)} inputs, expected 1")
        self._input = inputs[0]
        self.input_shape = tuple(self._input["shape"].tolist())
        # `shape` shows a dynamic size as 1; only `shape_signature` shows it as -1.
        shape = self._input.get("shape_signature", self._input["shape"]).tolist()
        dtype = self._input["dtype"].__name__
        if (
            (self.input_shape[:1], self.input_shape[3:]) != ((1,), (3,))
            or -1 in shape[1:]
            or dtype not in ("uint8", "int8", "float32", "float16")
        ):
            raise ValueError(
                "expected an input [1, height, width, 3] of uint8, int8, float32 or "
                f"float16, received {shape} of {dtype}"
            )

    def _input_values(self, mean, std):
        """Returns an array (256, 3): the input value of each pixel value and channel.

        real = (pixel - mean) / std, and a quantized input holds real as
        scale * (value - zero_point).
        """
        import numpy as np

        for name, values in (("mean", mean), ("std", std)):
            if len(values) not in (1, 3) or not all(map(math.isfinite, values)):
                raise ValueError(
                    f"{name}: expected 1 or 3 finite numbers, received {values}"
                )
        if min(std) <= 0:
            raise ValueError(f"std: expected numbers above 0, received {std}")
        dtype = self._input["dtype"]
        with np.errstate(all="ignore"):
            table = (np.arange(256.0)[:, np.newaxis] - mean) / std + np.zeros(3)
            fits = np.isfinite(table.astype(np.float32)).all()
        if not fits:
            raise ValueError(f"mean {mean} and std {std} leave the range of numbers")
        if not np.issubdtype(dtype, np.floating):
            scale, zero_point = self._input["quantization"]
            if not scale:
                raise ValueError("its input has no scale, which --mean and --std need")
            limits = np.iinfo(dtype)
            table = np.rint(table / scale) + zero_point
            table = table.clip(limits.min, limits.max)
        return table.astype(dtype)

    def _to_input(self, pixels):
        """Turns pixels into the values of the input tensor."""
        import numpy as np

        if self._bgr:
            pixels = pixels[..., ::-1]
        if self._lookup is not None:
            return self._lookup[pixels, np.arange(3)]
        if self._input["dtype"] == np.int8:
            return (pixels ^ 128).view(np.int8)  # pixel - 128 in two's complement
        return pixels.astype(self._input["dtype"])

    def tensors(self, pixels):
        """Runs the model on one prepared image.

        Args:
            pixels: uint8 array (height, width, 3) of the input size, RGB.

        Returns:
            list of the output arrays as the runtime gives them, without the batch.

        Raises:
            UserError: the array has another shape or dtype, or the runtime failed.
        """
        import numpy as np

        if pixels.shape != self.input_shape[1:] or pixels.dtype != np.uint8:
            raise UserError(
                f"expected uint8 {self.input_shape[1:]}, received {pixels.dtype} "
                f"{pixels.shape}"
            )
        values = self._to_input(pixels)
        self._interpreter.set_tensor(self._input["index"], values[np.newaxis])
        with user_errors(self._runner, RuntimeError, ValueError):
            self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(output["index"])[0] for output in self._outputs
        ]

    def check_finite(self, values):
        """Raises UserError for an array with a number that is not finite."""
        import numpy as np

        if not np.isfinite(values).all():
            raise UserError(f"{self.path}: gave scores that are not finite numbers")

    def dequantized(self, number, values):
        """Returns values of an output as float32: a copy.

        Args:
            number: of the output.
            values: array of its dtype.
        """
        import numpy as np

        values = values.astype(np.float32)
        scale, zero_point = self._outputs[number]["quantization"]
        if scale:  # 0 where the output is not quantized
            values = (values - np.float32(zero_point)) * np.float32(scale)
        return values

    def input_of(self, image):
        """Reads and prepares one image.

        Args:
            image: as `read_image` takes it.

        Returns:
            (pixels for `tensors`, the `DecodedImage`).
        """
        decoded = read_image(image, self)
        with user_errors("image", ValueError, MemoryError):
            return prepare(decoded.image, self, decoded.box), decoded


class SceneModel(ImageModel):
    """What `Detector` and `Segmenter` share."""

    def __init__(
        self,
        model_path: AnyPath,
        labels_path: typing.Optional[AnyPath] = None,
        threads: typing.Optional[int] = None,
        delegate: str = "auto",
        delegate_options: typing.Optional[typing.Dict[str, str]] = None,
        normalization: typing.Optional[typing.Tuple[Numbers, Numbers]] = None,
        bgr: bool = False,
    ) -> None:
        """Loads a model; the arguments and errors are those of `Classifier`."""
        super().__init__(
            model_path, threads, delegate, delegate_options, normalization, bgr
        )
        self._use_outputs()
        self.labels = self._read_labels(labels_path, parse_sparse_labels)

    def _use_outputs(self):
        """Sets `classes`, or raises UserError for outputs that are not understood."""
        raise NotImplementedError

    def outputs(self, pixels: "np.ndarray") -> "typing.List[np.ndarray]":
        """Runs the model on one prepared image; returns what `interpret` takes."""
        return self.tensors(pixels)

    def label_of(self, index: int) -> typing.Optional[str]:
        """Returns the label of a class, or None."""
        labels = self.labels or ()
        return labels[index] if 0 <= index < len(labels) else None
