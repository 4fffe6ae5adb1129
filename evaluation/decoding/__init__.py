"""Decoding many rows at once, each at its own pace and as if it were alone."""
