"""A run: its setup, its rounds, its files, its state, its checkpoints and their manifests."""
