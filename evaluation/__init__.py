"""Scores a FlowerTune checkpoint: `python -m evaluation.finance CKPT`, and the same for every
challenge.
"""

import os
import sys

# `python -m` puts the working directory first on the path, and that may be a folder that somebody
# handed in: nothing is imported from there, here or in processes that are started. This has to
# stand before every other import.
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    del sys.path[0]
    os.environ["PYTHONSAFEPATH"] = "1"
