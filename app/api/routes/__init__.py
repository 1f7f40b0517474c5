"""What is answered at which path; each route's docstring is its text on /docs."""
