"""Detection and segmentation: what their networks learn, and how it is measured."""
