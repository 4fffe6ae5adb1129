"""How adapters travel: their precision on the wire, and what rounding leaves behind."""

KINDS = ("float32", "float16", "bfloat16", "int8")
