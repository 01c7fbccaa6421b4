"""Images for training and evaluation: sources, decoding, augmentation, batches."""
