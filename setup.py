"""Packaging of the zoo; `training/` and `edge/` run from a checkout."""

from setuptools import setup

# The ranges below are the versions that were tested together: see the version
# matrix in BUILD_NOTES.md before widening one.
TRAIN = [
    "absl-py>=1.4",
    "tensorflow>=2.21,<2.22",
    "tf_keras>=2.21,<2.22",  # tensorflow-model-optimization runs on it
    "tensorflow-model-optimization>=0.8.1,<0.9",
    "tensorflow-datasets>=4.9.10,<4.10",
    "importlib_resources",  # tensorflow-datasets imports it undeclared
    "setuptools",  # tensorflow-model-optimization imports distutils
    "tensorboard>=2.20,<2.22",
    "scikit-learn>=1.5,<2",  # the embedded dataset `digits`
    "matplotlib>=3.8,<4",
]
EDGE = [
    "absl-py>=1.4",
    "ai-edge-litert>=2.1,<3",
    "flatbuffers>=24.3",
    "Pillow>=10",
]
VELA = ["ethos-u-vela>=5.2,<6"]  # Arm's compiler, for --target=ethos-u55-128 ...
# The other backends of Keras, for the tests. The torch of PyPI brings CUDA on Linux:
# a CPU needs only the wheel of https://download.pytorch.org/whl/cpu.
BACKENDS = [
    "jax[cpu]>=0.10,<0.11",
    "torch==2.13.0",
]
DEV = [
    "pytest>=8,<10",
    "safetensors>=0.5",  # writes the files that the package's own reader is held to
    "ruff>=0.14,<0.18",
]

setup(
    name="keras-resnet-zoo",
    version="0.1.0",
    description=(
        "ResNet v1 for Keras 3: from the paper to Coral Edge TPU and ARM devices"
    ),
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=["keras_resnet"],
    package_data={"keras_resnet": ["*.tsv", "pretrained/*"]},
    install_requires=[
        "keras>=3.10",
        "numpy",
        "h5py",
        "huggingface_hub>=1.0",
        "Pillow>=10",
    ],
    extras_require={
        "train": TRAIN,
        "edge": EDGE,
        "dev": DEV,
        "backends": BACKENDS,
        "vela": VELA,
    },
    classifiers=[
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
