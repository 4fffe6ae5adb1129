"""What a run is held to: valid settings, locked values, unchanged protected files."""
