"""What can be checked of the views on a checkpoint alone: one function for each law, which returns the worst figure.

Each compares what a view says with another way to the same number: loops, central differences, painted images, a
picture read back. A check that a network has no use for raises ViewNotApplicable with the reason.
"""
