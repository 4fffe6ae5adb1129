"""Talk to a trained checkpoint: what ``test.py`` at the app's root does."""
