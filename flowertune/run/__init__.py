"""The machinery of a run: roll call, rounds, ledger, checkpoints and their manifests."""
