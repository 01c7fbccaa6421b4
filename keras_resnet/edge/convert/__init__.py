"""Keras or QAT -> .tflite."""
