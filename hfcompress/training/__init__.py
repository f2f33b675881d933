"""Training: arguments, trainers, callbacks, and the trainings of a run."""
