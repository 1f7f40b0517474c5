"""What a network knows about its own answers: how strange an image is to it. Arrays in, arrays out."""
