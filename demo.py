"""The whole way in a few minutes: train, QAT, export, classify on the device's side.

Runs the same commands as the README, on scikit-learn's digits, and measures what
the device would: the int8 file, through edge/run_tflite.py, on PNG files. Then it
fine-tunes on photographs, which are cut out of scikit-learn's two.
"""

import json
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent
RUN = ROOT / "runs" / "demo"
PHOTOS_RUN = ROOT / "runs" / "demo-photographs"
PHOTOS = ROOT / "runs" / "photographs"
PICTURES = RUN / "held_out"
FLOAT = RUN / "model-none.tflite"
INT8 = RUN / "model-qat.tflite"
REPLICAS = ("--strategy=mirrored", "--cpu_replicas=2")


def main():
    """Runs the commands and prints the table."""
    started = time.perf_counter()
    shutil.rmtree(RUN, ignore_errors=True)
    run_dir = f"--model_dir={RUN.relative_to(ROOT)}"
    train = ("--model=resnet8", "--dataset=digits", "--epochs=20", run_dir)
    step("training/train.py", *train, *REPLICAS)
    step("training/qat.py", run_dir, "--epochs=2", *REPLICAS)
    step("edge/export.py", run_dir)
    step("edge/export.py", run_dir, "--quantize=none")
    write_pictures()
    some = [PICTURES / f"{label}" / "0.png" for label in (0, 3, 8)]
    classify(INT8, *some, "--top_k=2")
    print_table()
    photographs()
    print("\nThe networks that ship, trained on CIFAR-10, on this machine:")
    step("-m", "benchmarks.pareto", "--rounds=15")
    print(f"\nThe whole way took {time.perf_counter() - started:.0f} s. See:")
    for path in (RUN / "curves.png", RUN / "model.keras", INT8, PICTURES, PHOTOS_RUN):
        print(f"  {path.relative_to(ROOT)}")


def photographs():
    """Fine-tunes on crops of two photographs, and classifies others of them."""
    for folder in (PHOTOS, PHOTOS_RUN):
        shutil.rmtree(folder, ignore_errors=True)
    write_photographs()
    run_dir = f"--model_dir={PHOTOS_RUN.relative_to(ROOT)}"
    data = ("--dataset=folder", f"--data_dir={PHOTOS.relative_to(ROOT)}")
    # Crops of one half resemble each other more than those of the other half do: a
    # model that learned when a picture is unknown would take these for strangers.
    quick = ("--model=resnet16_224", "--freeze=backbone", "--known_share=1")
    step("training/train.py", *data, *quick, run_dir)
    step("edge/export.py", run_dir, "--quantize=int8", "--target=edgetpu")
    some = [PHOTOS / "val" / name / "0.jpg" for name in ("palace", "flower")]
    classify(PHOTOS_RUN / "model-int8.tflite", *some)


def write_photographs():
    """Cuts pictures to learn out of the left halves, others out of the right ones."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    for name, file in (("palace", "china.jpg"), ("flower", "flower.jpg")):
        whole = Image.fromarray(load_sample_image(file))
        middle = whole.width // 2
        for split, begin, count in (("train", 0, 24), ("val", middle, 12)):
            folder = PHOTOS / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                side = int(rng.integers(160, middle))
                left = begin + int(rng.integers(middle - side + 1))
                top = int(rng.integers(whole.height - side + 1))
                crop = whole.crop((left, top, left + side, top + side))
                crop.save(folder / f"{number}.jpg", quality=92)


def step(*command, output=None):
    """Shows a command and runs it; ends the demo where it fails."""
    shown = [str(word).replace(f"{ROOT}/", "") for word in command]
    print(f"\n$ python {' '.join(shown)}", flush=True)
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=output)
    if done.returncode:
        sys.exit(done.returncode)
    return done


def classify(model, *arguments, output=None):
    """Runs the runner on a model."""
    return step("edge/run_tflite.py", f"--model={model}", *arguments, output=output)


def write_pictures():
    """Writes the held-out digits as PNG files, 8x8 as they were scanned."""
    from keras_resnet import console

    console.import_tensorflow()
    from keras_resnet.training.data import sources

    dataset = sources.load("digits")
    for encoded, label in dataset.held_out.read().as_numpy_iterator():
        folder = PICTURES / dataset.labels[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.png").write_bytes(encoded)


def print_table():
    """Measures both files with the runner, on the PNG files."""
    metrics = json.loads((RUN / "metrics.json").read_text())
    size = f"{(RUN / 'model.keras').stat().st_size:,}"
    rows = [("Keras float32", f"{metrics['top1']:.2%}", size, "")]
    for name, path in (("TFLite float32", FLOAT), ("TFLite int8, QAT", INT8)):
        found = classify(path, PICTURES, "--json", output=subprocess.PIPE)
        results = [json.loads(line) for line in found.stdout.splitlines()]
        right = sum(
            result["top"][0]["label"] == pathlib.Path(result["file"]).parent.name
            for result in results
        )
        assert len(results) == metrics["examples_evaluated"]
        timing = classify(path, "--benchmark", "--json", output=subprocess.PIPE)
        invoke = json.loads(timing.stdout)["invoke"]["median"]
        size = f"{path.stat().st_size:,}"
        rows.append((name, f"{right / len(results):.2%}", size, f"{invoke:.3f}"))
    print(f"\nResNet-8 on {len(results)} held-out digits, PNG files through the runner")
    heads = ("", "top-1", "file, bytes", "invoke, ms")
    for row in (heads, *rows):
        print(f"  {row[0]:<18}{row[1]:>8}{row[2]:>14}{row[3]:>13}")


if __name__ == "__main__":
    main()
