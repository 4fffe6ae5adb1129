"""Which rows of an evaluation set are also training rows, and the scores without them."""

from evaluation.contamination.check import compare
from evaluation.contamination.training import NoRows, TrainingRows, find

__all__ = ["NoRows", "TrainingRows", "compare", "find"]
