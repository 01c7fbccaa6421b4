"""LiteRT (package ai-edge-litert): the current runtime of TensorFlow Lite.

It has every operator of `inspect/op_versions.tsv`, in integers and in floating point.
"""

from keras_resnet.edge.targets.target import Target

TARGETS = {"litert": Target()}
