"""cardflow: Korean vocabulary in, verified flashcards out."""
