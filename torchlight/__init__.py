"""An image classifier you can see inside. ``torchlight.load("photos.safetensors").predict("cat.jpg")`` answers."""
