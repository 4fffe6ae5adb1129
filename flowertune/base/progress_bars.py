"""Keep libraries' progress bars and remarks out of a run's log and of a command's output."""

import warnings
from logging import ERROR, getLogger

import datasets
from transformers.utils import logging


def disable_progress_bars() -> None:
    """Switch off progress bars in this process, and two remarks that ask for nothing."""
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    # transformers' own code still reads the name it deprecates.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
    # bitsandbytes tells of a kernel that it does without.
    getLogger("bitsandbytes").setLevel(ERROR)
