"""Features: the vector of a question, scaled and projected, and how familiar it is."""
