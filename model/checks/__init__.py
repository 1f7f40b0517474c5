"""Checks of the views that need only a checkpoint: one function for each invariant, which returns its worst figure.

Each compares a view with another way to the same number: loops, central differences, painted images, pixels read back
from a picture. A check that does not apply to a network raises ViewNotApplicable with the reason.
"""
