"""Metrics, significance, measuring, and the report."""
