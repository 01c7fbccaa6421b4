"""The report of a run: `report.html`, and the accuracy of each class."""
