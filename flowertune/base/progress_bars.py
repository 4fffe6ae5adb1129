"""Keep libraries' progress bars and remarks out of a run's log and of a command's output."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger


def disable_progress_bars() -> None:
    """Switch off progress bars in this process, and remarks that ask for nothing."""
    # It takes a second to import, and a server without rows does without.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
    quiet_models()


def quiet_models() -> None:
    """Switch off progress bars and remarks of loading models, in this process."""
    from transformers.utils import logging  # late: it takes seconds

    logging.disable_progress_bar()
    # transformers' own code and peft's still use the names that transformers deprecates.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing(_enable)?` is deprecated")
    # torch's own code still uses what it deprecates.
    warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated")
    # bitsandbytes, which peft imports, tells of a kernel on the hub that it does without.
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
    # It tells of a cast that 8 bits are made of, at each layer of each pass.
    getLogger("bitsandbytes.autograd._functions").setLevel(ERROR)


@contextmanager
def without_remarks() -> Iterator[None]:
    """Within this context transformers says errors only: what it loads is checked by the caller."""
    from transformers.utils import logging  # late, as above

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
