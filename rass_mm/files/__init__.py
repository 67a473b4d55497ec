"""Everything that touches the disk: images, tensors, manifests, hashes, atomic writes."""
