"""Schema of `report.json`."""
