"""Oracle annotators: answers taken from ground truth, for demonstrations and measurement."""
