"""Which rows of an evaluation set are also training rows, and the scores without them."""
