"""What a person imports, by ``ovskit.core``: functions with plain arguments around the rooms, in the vocabulary of the commands."""
