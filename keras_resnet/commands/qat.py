"""Fine-tunes a trained model quantization-aware (QAT), for int8.

Example:
  python training/qat.py --model_dir=runs/resnet20-digits --strategy=mirrored

Takes the data, the recipe and the model of a run of train.py, and writes the folder
MODEL_DIR/qat: saved_model/, which edge/export.py --model_dir=MODEL_DIR converts to a
.tflite, and model.keras, the fine-tuned weights in float.
To fine-tune again, with other flags or after more training, delete MODEL_DIR/qat.
"""

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

REQUIRED = ("model_dir",)


def define_flags():
    """Defines the flags of the command."""
    text = "Folder of a run of train.py or adopt.py."
    flags.DEFINE_string("model_dir", None, text)
    text = "Folder of the dataset; default: where the training found it."
    flags.DEFINE_string("data_dir", None, text)
    flags.DEFINE_list(
        "float_layers",
        [],
        "Layers to leave in float, by name or pattern (conv1_*,predictions), because "
        "they lose accuracy in 8 bits. An Edge TPU computes none of them.",
    )
    flags.DEFINE_list(
        "freeze",
        None,
        "What stays as it is: batch_norm (the float model's statistics), ranges (of "
        "activations, as calibrated). Default: batch_norm for a run of adopt.py and "
        "for one that was fine-tuned, else nothing (--freeze=).",
    )
    app.define_training_flags(
        "a tenth of the training's",
        "a hundredth of the training's, at most 0.0001 after adopt.py",
    )


def main():
    """Fine-tunes as the flags say."""
    console.import_tensorflow()
    from keras_resnet import training
    from keras_resnet.training import reporting

    run = training.quantize_aware(
        flags.FLAGS.model_dir,
        **app.arguments(training.quantize_aware, "run", "progress"),
    )
    print(
        f"quantization-aware held-out {app.accuracy_text(run.metrics)} on "
        f"{run.metrics['examples_evaluated']} images; files in {run.directory}"
    )
    reporting.print_summary(run)
