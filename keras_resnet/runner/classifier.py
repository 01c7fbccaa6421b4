"""The classifier: a model that gives scores of classes, or features."""

import typing

from keras_resnet.runner.classes_file import read_classes
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.head import head_scores
from keras_resnet.runner.image_model import AnyPath, ImageModel, Numbers
from keras_resnet.runner.learn import learn_classes
from keras_resnet.runner.learning import KNOWN_SHARE, UNKNOWN
from keras_resnet.runner.model_file import parse_labels
from keras_resnet.runner.output import Messages
from keras_resnet.runner.preprocessing import FEATURES, output_of, parse_threshold
from keras_resnet.runner.supervisor import SharedState

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image


class Prediction(typing.NamedTuple):
    """A class of an image: its index, its label (None without labels), its score."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    score: float


class Classifier(ImageModel):
    """A TFLite image classifier, ready to run.

    It has the attributes of `ImageModel`, and its own.

    Attributes:
        classes: 0 for features without learned classes.
        channels: int, the number of features of a model that gives features; else None.
        threshold: float, the score from which on an image has a label, of a model that
            was trained for several labels an image; else None.
    """

    task = "classify"
    classes: int
    channels: typing.Optional[int]
    threshold: typing.Optional[float]

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
        super().__init__(
            model_path, threads, delegate, delegate_options, normalization, bgr
        )
        shape = self._outputs[0]["shape"].tolist()
        if len(shape) != 2 or shape[0] != 1:
            raise UserError(
                f"{self.path}: expected output [1, classes], received {shape}"
            )
        self.classes = shape[1]
        self.threshold = self.channels = self._head = None
        if self.preprocessing is not None:
            self.threshold = self._read_inside(parse_threshold)
            if output_of(self._file.preprocessing) == FEATURES:
                self.channels, self.classes = self.classes, 0
        if classes is not None:
            self._use_classes(classes, labels_path)
        else:
            self.labels = self._read_labels(labels_path, parse_labels)

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
        return self.top_k(self.scores(self.input_of(image)[0]), top_k)

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
        return self.interpret(self.outputs(pixels))

    def interpret(self, outputs: "np.ndarray") -> "np.ndarray":
        """Returns the scores of classes for what `outputs` returns."""
        if not self.channels:
            return outputs
        self.check_classes()
        return head_scores(outputs[None], self._head)[0].astype("float32")

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
        outputs = self.dequantized(0, self.tensors(pixels)[0])
        self.check_finite(outputs)
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
