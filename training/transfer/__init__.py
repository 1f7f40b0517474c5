"""Features of a published network to a classifier of other photos, chosen by cross-validation."""
