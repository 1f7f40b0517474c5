"""What an answer says of how sure it is, beyond the probabilities."""
