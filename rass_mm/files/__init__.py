"""File access: images, tensors, manifests, hashes and atomic writes."""
