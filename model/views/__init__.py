"""Numbers that show what a network does with an image. Knows nothing of pictures, files or HTTP."""
