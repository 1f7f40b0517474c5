"""Bytes to probabilities: decoder pool, batcher, network. Knows no HTTP."""
