"""Where models and training rows come from: the hub, this machine, or the built-in model."""
