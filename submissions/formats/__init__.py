"""What a bundle holds for other tools, each in its own form.

card.py             a model card, of huggingface_hub's classes
hub_results.py      Hugging Face's .eval_results
every_eval_ever.py  a record of Every Eval Ever
provenance.py       an in-toto statement with a SLSA provenance
croissant.py        the training set, in Croissant
"""
