"""Background work on RQ: where the queues are, what runs in them, who runs it."""
