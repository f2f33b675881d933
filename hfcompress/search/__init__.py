"""From importance and a budget to a PruningPlan."""
