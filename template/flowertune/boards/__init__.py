"""Pass a run's numbers on to TensorBoard and Weights & Biases, where they are installed."""
