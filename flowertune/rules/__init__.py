"""The rules: what is locked for a challenge, which library runs, and the manifest's seal."""
