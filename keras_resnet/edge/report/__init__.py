"""The report on an export."""
