"""Object2Vec: people and films as vectors, learned from pairs of them."""
