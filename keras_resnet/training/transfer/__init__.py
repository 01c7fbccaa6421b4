"""Transfer learning: from published weights to the classes of a few photographs."""
