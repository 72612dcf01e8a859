"""The built-in sample dataset and its one-command start."""
