"""The revisions. Each is a frozen copy of its day: it imports nothing of the models."""
