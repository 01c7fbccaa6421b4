"""Training: `train`, `quantize_aware`, `evaluate` and `adopt`.

They need TensorFlow: pip install "keras-resnet-zoo[train]".
"""

from keras_resnet import console

console.require_tensorflow("keras_resnet.training")

from keras_resnet.training.adoption import adopt  # noqa: E402
from keras_resnet.training.evaluation import evaluate  # noqa: E402
from keras_resnet.training.experiment import train  # noqa: E402
from keras_resnet.training.fine_tuning import quantize_aware  # noqa: E402
from keras_resnet.training.progress import Progress  # noqa: E402
from keras_resnet.training.runs.run import Run  # noqa: E402

__all__ = ["Progress", "Run", "adopt", "evaluate", "quantize_aware", "train"]
