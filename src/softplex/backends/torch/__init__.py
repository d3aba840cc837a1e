"""PyTorch: road.py is where tensors come in, backend.py what they are, eager.py and solving.py what they run."""
