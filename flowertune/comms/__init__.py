"""Between server and clients: node discovery, codecs, exchanges, validation, the ledger."""
