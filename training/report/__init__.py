"""A run for people: sentences, charts, one HTML file."""
