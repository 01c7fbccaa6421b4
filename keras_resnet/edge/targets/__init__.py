"""What can run a .tflite: one module for each target, and the check that they share."""
