"""Training: losses, trainers, and the two trainings of a run."""
