"""From a model's name to a model, and the adapter on it."""
