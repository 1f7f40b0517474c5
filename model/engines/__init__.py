"""What computes answers: OpenVINO or PyTorch, float32 or int8, one image or a folder, and exported programs."""
