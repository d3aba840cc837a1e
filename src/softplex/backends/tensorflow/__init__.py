"""TensorFlow: road.py is where tensors come in, backend.py what they are, ways.py how they are computed and back."""
