"""Folders of photos to arrays, divided into train, val and test."""
