"""What an answer says beyond its probabilities: how strange the image is, and which labels hold the truth."""
