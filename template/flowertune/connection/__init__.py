"""The Flower connection this app runs over: its configuration and its SuperLink."""
