"""What every layer may use, whatever it is about: files, logs, processes, disk space, types."""
