"""A dataset name -> batches."""
