"""What a .tflite holds, and the error of each layer."""
