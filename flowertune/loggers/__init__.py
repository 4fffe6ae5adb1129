"""Loggers: what shows the numbers of a run's rounds while it goes on."""
