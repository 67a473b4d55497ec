"""Jobs on a Ray cluster: Ray Data streams batches of images through a pool of actors, each with a model of its own.

Only names and manifest lines pass through Ray: an actor reads and writes its images itself. As tasks of their own, that
would overlap with the computation, but copy each image twice. Two actors that share a GPU overlap too, without copies.
The process of the command records each finished image, as it does without Ray.
"""
