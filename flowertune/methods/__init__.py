"""Federated methods: one file each, with the server's half and the client's half."""
