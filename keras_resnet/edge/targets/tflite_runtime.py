"""tflite-runtime: the runtime before LiteRT, which 32-bit ARM devices still need."""

from keras_resnet.edge.targets.target import Target

NEWEST = "2.14.0"  # its last release
OLDEST_TESTED = "2.7.0"  # the oldest release that the tests run

TARGETS = {"tflite_runtime": Target(newest_runtime=NEWEST)}
