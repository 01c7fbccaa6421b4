"""The folder of a run: who owns it, checkpoints, report."""
