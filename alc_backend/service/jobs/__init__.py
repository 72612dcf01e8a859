"""The slow work: queues in Redis, the functions that they carry, and the workers that run them."""
