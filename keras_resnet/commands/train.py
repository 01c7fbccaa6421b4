r"""Trains a ResNet.

Examples:
  python training/train.py --strategy=mirrored
      Trains ResNet-20 on the embedded digits, without a download or a GPU, in a minute.
  python training/train.py --model=resnet8 --dataset=cifar10 --epochs=30 \
      --strategy=mirrored --cpu_replicas=2
      Trains two replicas on two halves of the CPU.
  python training/train.py --dataset=folder --data_dir=photos
      Fine-tunes ResNet-20-224 on your own images, in photos/CLASS/IMAGE. It starts from
      ImageNet features that are in the package.
  python training/train.py --dataset=folder --data_dir=photos \
      --weights=runs/photos --model_dir=runs/photos2
      Goes on from a run, with more pictures or one class more in photos.
  python training/train.py --task=detect --dataset=voc_folder --data_dir=photos
      Trains a detector on your own pictures with boxes, as LabelImg, CVAT and others
      write them. --task=segment learns masks. Without a dataset, both use scenes of
      digits that are in the package.

Stopped at any moment and started again with the same flags, a training continues and
ends with the weights of an unbroken one.
"""

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

TEXTS = {
    "model": "Name of a model: `keras-resnet models` lists them. Default: resnet20_224 "
    "for your images (resnet16_224 is smaller), resnet20 for small ones such as "
    "digits. Of a detector or segmenter it is the backbone; default: resnet16_224, "
    "or resnet14 for digit_scenes.",
    "data_dir": "Folder of the dataset: DIR/CLASS/IMAGE or DIR/{train,val}/CLASS/IMAGE "
    "with --dataset=folder, a file with the columns image,label with --dataset=csv, "
    "else where tensorflow-datasets keeps its datasets.",
    "recipe": "Name of the hyperparameters; default: by dataset, and finetune for "
    "your images.",
    "weights": "Initial weights: a name such as imagenet, a file, the folder of a run "
    "to go on from with more pictures or classes, or none (random ones). Default: "
    "published ones with --recipe=finetune, else none.",
    "freeze": "backbone: with --recipe=finetune, only the classifier learns, which "
    "takes seconds.",
    "teacher": "Learn the scores of this model too (distillation): the name of a model "
    "that ships with weights (resnet20), or the folder of a run.",
    "damaged_images": "stop or skip: what to do about images that cannot be decoded; "
    "default: stop.",
    "model_dir": "Folder of the run; default: runs/MODEL-DATASET, or "
    "runs/MODEL_widthWIDTH-DATASET.",
}
WHOLE_NUMBERS = {
    "hold_out": "Evaluate on this many training images and train on the others, to "
    "tune without touching the test set.",
    "batch_size": "Images in one training step, over all replicas together; default: "
    "the recipe's, or less if the dataset is smaller than that.",
    "image_size": "Height and width of the images in pixels, at least 32.",
}


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "task",
        "classify",
        "classify, detect (boxes around objects) or segment (the class of each pixel).",
    )
    flags.DEFINE_string(
        "dataset",
        None,
        "digits (embedded, the default), folder (your images), csv (your images, with "
        "one label each or with several) or an image-classification dataset of "
        "tensorflow-datasets. With --task=detect or segment: digit_scenes (embedded, "
        "the default), voc_folder, coco_json, yolo_folder, labelme_folder, mask_folder "
        "or a dataset of tensorflow-datasets.",
    )
    flags.DEFINE_float(
        "width",
        1,
        "Factor on the channels: 0.25, 0.5 or 0.75 for small devices; 1, 2, ... as in "
        "Wide ResNet.",
    )
    flags.DEFINE_string(
        "precision",
        "float32",
        "float32, mixed_bfloat16 or mixed_float16 (for GPUs). The saved model is "
        "float32.",
    )
    flags.DEFINE_boolean(
        "balance",
        False,
        "Show images of small classes several times in an epoch, so that it has as "
        "many of each class as of the largest.",
    )
    flags.DEFINE_float(
        "known_share",
        None,
        "With --recipe=finetune, the share of pictures of the classes that the model "
        "must know; it answers unknown for others. 1 leaves the label unknown out. "
        "Default: 0.95.",
    )
    flags.DEFINE_boolean("cache", False, "Keep the encoded images in memory.")
    flags.DEFINE_integer("evaluation_epochs", 1, "Epochs between two evaluations.")
    flags.DEFINE_integer(
        "seed",
        0,
        "Seed of the initial weights, the order of the images and their augmentation.",
    )
    app.define(flags.DEFINE_string, TEXTS)
    app.define(flags.DEFINE_integer, WHOLE_NUMBERS)
    app.define_training_flags(
        "the recipe's", "the recipe's, scaled from its batch size to yours"
    )


def main():
    """Trains as the flags say."""
    console.import_tensorflow()
    from keras_resnet import training
    from keras_resnet.training import reporting

    run = training.train(**app.arguments(training.train, "progress"))
    metrics = run.metrics
    print(
        f"held-out {app.accuracy_text(metrics)} on {metrics['examples_evaluated']} "
        f"images after {metrics['epochs']} epochs, "
        f"{metrics['examples_per_second']:.0f} examples/s; files in {run.directory}"
    )
    if before := metrics.get("before"):
        print(
            f"{before['top1_now']:.2%} of the {before['examples']} held-out images of "
            f"classes that {before['run']} knows are right now, and "
            f"{before['top1_before']:.2%} were before (without the label unknown)"
        )
    reporting.print_summary(run)
