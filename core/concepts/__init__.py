"""What a concept is, and which concepts a caption names: a vocabulary of nouns with their inflected forms, and whole-word matching."""
