"""ovskit's library: records, formats, models and one room per command."""

__version__ = "0.1.0"
