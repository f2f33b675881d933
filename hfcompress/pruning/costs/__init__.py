"""Cost of a pruning plan: MACs, parameters, or measured time."""
