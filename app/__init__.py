"""Serves a checkpoint: HTTP in, JSON and pictures out. Knows nothing of training."""
