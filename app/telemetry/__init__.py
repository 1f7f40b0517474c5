"""Metrics, traces and logs. Imported by every room above it."""
