"""The ``alc`` command. Each command is a module, which imports what is slow when it runs."""
