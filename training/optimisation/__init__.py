"""Weights that learn: loop, optimizer, augmentation, several processes."""
