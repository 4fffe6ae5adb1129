"""Verify a bundle: everything that can be recomputed without a model, in seconds."""
