"""Some rows of each set answered again by the real model, for ``verify --rescore N``.

rows.py     which rows: drawn after submission, whole batches where the official scorer has them
again.py    answers these rows, and no others, with the scorer as it is
ties.py     whether rounding could have decided between two answers
compare.py  the bundle's answers beside those
rescore.py  all of it, as findings
"""
