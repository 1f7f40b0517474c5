"""How right a network is, and how far its probabilities can be trusted."""
