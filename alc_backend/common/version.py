"""The version of this package, for what it writes; packaging reads it from here as well."""

__version__ = "0.1.0"
