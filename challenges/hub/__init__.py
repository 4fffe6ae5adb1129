"""An organizer's hub: answers what `flwr new` asks Flower Hub, with apps out of the template.

Run it with `python -m challenges.hub serve`; docs/guides/hub.md tells the rest.
"""
