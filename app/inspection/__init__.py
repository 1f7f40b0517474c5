"""Stored images and what the views compute from them. Knows no HTTP."""
