"""Training: one loop, its checkpoints, and the stages that it runs (search, tuning, retraining)."""
