"""From a trained model to the device."""
