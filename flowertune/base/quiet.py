"""Keep a worker's progress bars out of the run's log, where they are broken lines."""

import warnings

import datasets
from transformers.utils import logging


def disable_progress_bars() -> None:
    """Switch off the libraries' progress bars in this process."""
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    # transformers' own code still reads the name it deprecates.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
