"""What needs no setting and no model: errors, files, text, numbers, digests, the hub."""
