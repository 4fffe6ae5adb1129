"""Task files with which the unchanged `lm_eval` command scores the sets of this package.

`python -m evaluation.lm_eval_tasks` prints their folder, for `lm_eval run --include_path`.
`scripts/generate` writes them, from the sets themselves.
"""
