"""The classifier: a model, its runtime, its labels and what it is fed."""

import math
import os
import time
import typing

from keras_resnet.runner.classes_file import read_classes
from keras_resnet.runner.delegates import choose_delegate, load_delegate
from keras_resnet.runner.errors import UserError, open_file, read_at_most, user_errors
from keras_resnet.runner.head import head_scores
from keras_resnet.runner.images import prepare, read_image
from keras_resnet.runner.learn import learn_classes
from keras_resnet.runner.learning import KNOWN_SHARE, UNKNOWN
from keras_resnet.runner.model_file import MAX_LABEL_BYTES, parse_labels, read_model
from keras_resnet.runner.output import Messages
from keras_resnet.runner.pipeline import milliseconds_since
from keras_resnet.runner.preprocessing import (
    Preprocessing,
    gives_features,
    parse_preprocessing,
    parse_threshold,
)
from keras_resnet.runner.runtime import (
    build_interpreter,
    default_threads,
    load_runtime,
    silenced_stderr,
)
from keras_resnet.runner.supervisor import SharedState

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image

AnyPath = typing.Union[str, os.PathLike]
Numbers = typing.Sequence[float]


class Prediction(typing.NamedTuple):
    """A class of an image: its index, its label (None without labels), its score."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    score: float


class Classifier:
    """A TFLite image classifier, ready to run.

    Attributes:
        path: str, of the model.
        labels: list of str, one per class, or None.
        classes: int, the number of classes; 0 for features without learned classes.
        channels: int, the number of features of a model that gives features; else None.
        input_shape: (1, height, width, 3).
        preprocessing: `Preprocessing`, or None where the model carries none.
        threshold: float, the score from which on an image has a label, of a model that
            was trained for several labels an image; else None.
        runtime: str, name and version of the TFLite runtime.
        delegate: str, the delegate that runs the model, or "none" for the CPU.
        idle_delegate: bool, whether the delegate left all of the model to the CPU.
        threads: int, CPU threads.
        load_milliseconds: float, the time to read, check and build the model, without
            the imports of Python.
    """

    path: str
    labels: typing.Optional[typing.List[str]]
    classes: int
    channels: typing.Optional[int]
    input_shape: typing.Tuple[int, ...]
    preprocessing: typing.Optional[Preprocessing]
    threshold: typing.Optional[float]
    runtime: str
    delegate: str
    idle_delegate: bool
    threads: int
    load_milliseconds: float

    def __init__(
        self,
        model_path: AnyPath,
        labels_path: typing.Optional[AnyPath] = None,
        threads: typing.Optional[int] = None,
        delegate: str = "auto",
        delegate_options: typing.Optional[typing.Dict[str, str]] = None,
        normalization: typing.Optional[typing.Tuple[Numbers, Numbers]] = None,
        bgr: bool = False,
        classes: typing.Optional[AnyPath] = None,
    ) -> None:
        """Loads a model.

        Args:
            model_path: a `.tflite` file.
            labels_path: a label file, one per line or Coral's `0  name` form; None
                takes the labels inside the model.
            threads: int, CPU threads; None is one per physical core, at most 4.
            delegate: "auto" (the Edge TPU for a model that is compiled for it, the
                CPU for any other), "none", "edgetpu", "edgetpu:DEVICE" as pycoral
                names devices, or the path of an external delegate.
            delegate_options: dict of str, passed on to the delegate.
            normalization: (mean, std) on the scale of pixels, tuples of one or three
                numbers; None takes the normalization of the model's metadata.
            bgr: bool, whether the model expects blue first.
            classes: for a model that gives features, the file of the classes that
                `learn` wrote for it.

        Raises:
            UserError: a file, the runtime or the delegate is missing or does not fit.
        """
        interpreter_class, self.runtime = load_runtime()
        self.threads = threads or default_threads()
        self.path = os.fspath(model_path)
        self._bgr = bgr
        start = time.perf_counter()
        model = read_model(self.path)
        self._build(interpreter_class, model, delegate, delegate_options or {})
        with user_errors(self.path, ValueError):
            self._check_tensors()
        self.preprocessing = self.threshold = self.channels = self._head = None
        if model.preprocessing is not None:
            try:
                self.preprocessing = parse_preprocessing(
                    model.preprocessing, self.input_shape[1:3]
                )
                self.threshold = parse_threshold(model.preprocessing)
                if gives_features(model.preprocessing):
                    self.channels, self.classes = self.classes, 0
            except UserError as error:
                raise UserError(
                    f"{self.path}: preprocessing.json inside: {error}"
                ) from error
        where = self.path
        # A quantized input needs no metadata: its scale and zero point say the same.
        is_float = "float" in self._input["dtype"].__name__
        if normalization is None and model.mean and is_float:
            where = f"{self.path}: its metadata is damaged"
            normalization = (model.mean, model.std)
        with user_errors(where, ValueError):
            self._lookup = normalization and self._input_values(*normalization)
        if classes is not None:
            self._use_classes(classes, labels_path)
        else:
            self.labels = self._read_labels(model.labels, labels_path)
        self.load_milliseconds = milliseconds_since(start)

    def _build(self, interpreter_class, model, delegate, options):
        """Builds the interpreter, with a delegate if there is one."""
        compiled = "edgetpu-custom-op" in model.custom_operators
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
                chosen and list_operators and len(list_operators()) == model.operators
            )
            with silenced_stderr():
                self._interpreter.allocate_tensors()

    def _check_tensors(self):
        """Raises ValueError for a model that is not a classifier of RGB images."""
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, 1):
            raise ValueError(
                f"has {len(inputs)} inputs and {len(outputs)} outputs, expected one of "
                "each"
            )
        self._input, self._output = inputs[0], outputs[0]
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
        output_shape = self._output["shape"].tolist()
        if len(output_shape) != 2 or output_shape[0] != 1:
            raise ValueError(f"expected output [1, classes], received {output_shape}")
        self.classes = output_shape[1]

    def _read_labels(self, data, path):
        """Parses the labels of the model, or of the file at `path` if one is given."""
        where = path or f"{self.path}: labels inside"
        with user_errors(where, ValueError, OSError):
            if path:
                with open_file(path) as file:
                    data = read_at_most(file, MAX_LABEL_BYTES)
            if data is None:
                return None
            labels = parse_labels(data, numbered=bool(path))
            if len(labels) != self.classes:
                raise ValueError(
                    f"{len(labels)} labels for a model of {self.classes} classes; pass "
                    "the label file of this model with --labels"
                )
        return labels

    def _use_classes(self, path, labels_path=None):
        """Makes a model of features a classifier of learned classes."""
        if labels_path:
            raise UserError(
                f"{labels_path}: learned classes have their labels; give no others"
            )
        if not self.channels:
            raise UserError(
                f"{self.path}: gives scores of its own classes, and learned classes "
                "need features; take a file of edge/export.py --features"
            )
        learned = read_classes(path, self.path, self.channels)
        self._head = learned.head
        self.labels = list(learned.labels)
        if self._head.bias.size > len(self.labels):
            self.labels.append(UNKNOWN)
        self.classes = len(self.labels)

    def learn(
        self,
        photos: AnyPath,
        classes: AnyPath,
        known_share: float = KNOWN_SHARE,
    ) -> typing.Dict[str, typing.Any]:
        """Learns folders of photographs as classes, which this classifier then has.

        A cross-validation chooses the classifier, from class means to a logistic
        regression. It takes little more time than running the model on every
        photograph.

        Args:
            photos: folder with one folder for each class, of 2 photographs or more.
                Those in a folder `_none` are learned as `unknown`.
            classes: file to write, for the argument `classes` of other classifiers. One
                of this model that is there is replaced.
            known_share: the share of new photographs of the classes that must not be
                answered with `unknown`, in (0, 1]. 1 learns no `unknown`.

        Returns:
            dict of what `run_tflite.py --learn --json` prints. Photographs that could
            not be read were left out; they are in its list "failures".

        Raises:
            UserError: the model gives no features, the folders cannot be learned, or
                the file belongs to another model or cannot be written. The file and
                this classifier are as they were.
        """
        messages = Messages(quiet=True)
        report = learn_classes(
            self, photos, classes, known_share, messages, SharedState()
        )
        self._use_classes(classes)
        return report

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

    def classify(
        self,
        image: "typing.Union[AnyPath, PIL.Image.Image, np.ndarray]",
        top_k: int = 5,
    ) -> typing.List[Prediction]:
        """Classifies one image.

        Args:
            image: path of an image file, PIL image, or uint8 array (height, width, 3)
                of RGB pixels, of any size.
            top_k: int, how many classes to return.

        Returns:
            list of `Prediction(index, label, score)`, the best first. `label` is None
            for a model without labels. If the model was trained for several labels an
            image, only those that the image has: it may be empty.

        Raises:
            UserError: the image cannot be read, or the model cannot run on it.
        """
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise UserError(f"top_k: expected a whole number above 0, received {top_k}")
        decoded = read_image(image, self)
        with user_errors("image", ValueError, MemoryError):
            pixels = prepare(decoded.image, self, decoded.box)
        return self.top_k(self.scores(pixels), top_k)

    def scores(self, pixels: "np.ndarray") -> "np.ndarray":
        """Runs the model on one prepared image.

        Args:
            pixels: uint8 array (height, width, 3) of the input size, RGB.

        Returns:
            float32 array (classes,), dequantized. It is a copy.

        Raises:
            UserError: the array has another shape or dtype, the runtime failed, a
                score is not a finite number, or the model gives features and no
                classes were learned.
        """
        if not self.channels:
            return self.outputs(pixels)
        self.check_classes()
        return head_scores(self.outputs(pixels)[None], self._head)[0].astype("float32")

    def check_classes(self) -> None:
        """Raises UserError for a model of features without learned classes."""
        if self.channels and self._head is None:
            raise UserError(
                f"{self.path}: gives features and has no classes; learn some with "
                "--learn=DIR --classes=FILE, then give --classes=FILE"
            )

    def outputs(self, pixels: "np.ndarray") -> "np.ndarray":
        """Runs the model on one prepared image; returns what it gives.

        That is the scores, float32 (classes,), or the features, float32 (channels,);
        see `scores`.
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
        outputs = self._interpreter.get_tensor(self._output["index"])[0]
        outputs = outputs.astype(np.float32)
        scale, zero_point = self._output["quantization"]
        if scale:  # 0 where the output is not quantized
            outputs = (outputs - np.float32(zero_point)) * np.float32(scale)
        if not np.isfinite(outputs).all():
            raise UserError(f"{self.path}: gave scores that are not finite numbers")
        return outputs

    def top_k(self, scores: "np.ndarray", k: int) -> typing.List[Prediction]:
        """Ranks classes by score; of equal scores, the lowest index comes first.

        Args:
            scores: float array (classes,). uint8 scores are often equal.
            k: int >= 1, the number of classes to return; at most all.

        Returns:
            list of `Prediction`, with a `threshold` those that reach it.
        """
        order = (-scores).argsort(kind="stable")[:k].tolist()
        if self.threshold is not None:
            order = [index for index in order if scores[index] >= self.threshold]
        labels = self.labels
        return [
            Prediction(i, labels[i] if labels else None, float(scores[i]))
            for i in order
        ]
