"""The report on an export: as data, as text and as an HTML page."""
