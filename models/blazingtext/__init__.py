"""BlazingText: the vectors of words, and texts by their labels."""
