"""The segmenter: a model that gives a class for each pixel."""

import typing

from keras_resnet.runner.boxes import IGNORED, mask_to_picture
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.image_model import AnyPath, SceneModel
from keras_resnet.runner.images import DecodedImage, geometry_of

if typing.TYPE_CHECKING:
    import numpy as np
    import PIL.Image


class Region(typing.NamedTuple):
    """A class of a mask: its index, its label, its share of the picture's pixels."""

    index: int  # type: ignore[assignment]  # a tuple has a method of this name
    label: typing.Optional[str]
    share: float


class Segmenter(SceneModel):
    """A TFLite model for segmentation, ready to run.

    It runs a file that gives scores of classes for each pixel, and one that gives the
    class of each, such as Coral's DeepLab. It has the attributes of `ImageModel`, and
    one of its own.

    Attributes:
        threshold: float, the score below which a pixel has no class; 0 at first.
    """

    task = "segment"

    def _use_outputs(self):
        self.threshold = 0.0
        shape, dtype = self._outputs[0]["shape"].tolist(), self._outputs[0]["dtype"]
        self.classes = shape[3] if len(shape) == 4 and shape[3] > 1 else None
        is_index = self.classes is None and "int" in dtype.__name__
        if not (is_index or self.classes and self.classes <= IGNORED):
            raise UserError(
                f"{self.path}: expected scores [1, height, width, 2 to {IGNORED}] or "
                f"class indices [1, height, width], received {shape} of "
                f"{dtype.__name__}"
            )

    def use_threshold(self, threshold: float) -> None:
        """Leaves pixels of a lower score without a class.

        Raises:
            UserError: the model gives no scores.
        """
        if threshold and self.classes is None:
            raise UserError(
                f"{self.path}: gives the class of each pixel and no scores, which "
                "--threshold needs; leave it out"
            )
        self.threshold = threshold

    def interpret(self, outputs: "typing.List[np.ndarray]") -> "np.ndarray":
        """Returns the mask of the model's input, at the resolution of the output.

        uint8 (height, width): class indices, `IGNORED` below the threshold.
        """
        import numpy as np

        (values,) = outputs
        if self.classes is None:
            mask = values.reshape(values.shape[:2])
            if mask.min() < 0 or mask.max() >= IGNORED:
                raise UserError(f"{self.path}: gave class {mask.max()}, of at most 254")
            return mask.astype(np.uint8)
        self.check_finite(values)
        # The order of quantized scores is that of the real ones, and 8 bits are quick.
        mask = values.argmax(axis=2).astype(np.uint8)
        if self.threshold:
            best = self.dequantized(0, values.max(axis=2))
            mask[best < np.float32(self.threshold)] = IGNORED
        return mask

    def picture_mask(self, mask: "np.ndarray", decoded: DecodedImage) -> "np.ndarray":
        """Returns the mask of a picture for that of the input: uint8, its size."""
        with user_errors("image", MemoryError):
            return mask_to_picture(mask, decoded.size, geometry_of(self))

    def regions(self, mask: "np.ndarray") -> typing.List[Region]:
        """Returns the classes of a mask as a list of `Region`, the largest first.

        `share` is that of the picture's pixels. Pixels without a class are left out.
        """
        import numpy as np

        counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)[:IGNORED]
        order = (-counts).argsort(kind="stable").tolist()
        shares = (counts / mask.size).tolist()
        return [
            Region(index, self.label_of(index), shares[index])
            for index in order
            if counts[index]
        ]

    def segment(
        self,
        image: "typing.Union[AnyPath, PIL.Image.Image, np.ndarray]",
        threshold: float = 0.0,
    ) -> "np.ndarray":
        """Finds the class of each pixel of one image.

        Args:
            image: path of an image file, PIL image, or uint8 array (height, width, 3)
                of RGB pixels, of any size.
            threshold: the score below which a pixel has no class, from 0 to 1.

        Returns:
            uint8 array (height, width) of the upright image: class indices, the places
            in `labels`; 255 where a pixel has none.

        Raises:
            UserError: the image cannot be read, or the model cannot run on it.
        """
        self.use_threshold(threshold)
        pixels, decoded = self.input_of(image)
        return self.picture_mask(self.interpret(self.outputs(pixels)), decoded)
