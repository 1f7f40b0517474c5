"""Arrays to pictures that do not mislead. Knows nothing of networks."""
