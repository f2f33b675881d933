"""Pruning without training: importance, costs, search and surgery."""
