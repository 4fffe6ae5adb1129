"""Scores a FlowerTune checkpoint: `python -m evaluation.finance CKPT`, and the same for every
challenge.
"""
