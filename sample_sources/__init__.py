"""Where the written training samples come from; not part of the installed packages.

`python -m sample_sources` writes challenges/samples/*.jsonl from the text files beside this one,
the same bytes every time. The evaluation samples (evaluation/samples/) were written by hand, apart
from these texts, and have no source but themselves. Companies, studies and figures are invented;
the facts in facts.txt and medical_facts.txt are not.
"""
