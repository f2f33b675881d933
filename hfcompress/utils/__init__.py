"""Helpers of all packages: files, text, logging, progress bars, the machine."""
