"""What each target asks of a .tflite."""
