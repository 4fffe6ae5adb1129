"""Signatures of bundles and reports, by a key of one's own.

keys.py           Ed25519 and EC keys, made and read
signature.py      a signature of some bytes, as JSON
model_signing.py  OpenSSF model signing of a whole bundle (the extra "sign")
"""
