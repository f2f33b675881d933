"""Publish a finished run as a repository on the Hub."""
