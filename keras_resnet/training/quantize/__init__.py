"""Quantization-aware training of Keras 3 models."""
