"""Pictures with boxes or masks: sources, annotations, augmentation and batches."""
