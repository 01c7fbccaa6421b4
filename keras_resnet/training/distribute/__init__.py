"""Strategies, and workers on several machines."""
