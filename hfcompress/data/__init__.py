"""Ranking data: reading, candidates, lists and batches."""
