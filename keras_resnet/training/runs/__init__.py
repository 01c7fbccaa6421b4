"""The folder of a run: its configuration, checkpoints, model and report."""
