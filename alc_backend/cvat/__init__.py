"""CVAT: its API, its masks, its webhooks, and the present masks as a function for it."""
