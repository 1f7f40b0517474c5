"""The network, its file, and the views into it. Knows nothing of HTTP and nothing of training."""
