"""The services that a user would otherwise write, with the same network, each as its documentation advises.

They know nothing of ``app``: what they share is how the network is loaded and an image prepared, in plain PyTorch.
"""
