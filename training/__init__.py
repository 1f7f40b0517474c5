"""Makes a checkpoint out of folders of photos. Knows nothing of HTTP."""
