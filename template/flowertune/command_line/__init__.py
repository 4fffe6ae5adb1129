"""What the commands share: the settings of the app in a folder, changed as flwr would."""
