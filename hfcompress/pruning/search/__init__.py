"""Search for pruning plans within a budget."""
