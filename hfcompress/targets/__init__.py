"""Exports of a cross-encoder to search engines and model servers: files that they load without editing."""
