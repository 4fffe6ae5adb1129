"""Read the profile of a run and show it: tables, JSON, traces."""
