"""What a .tflite file holds, read from the file alone."""
