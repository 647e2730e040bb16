"""The tests. A package of its own, lest an installed one of the same name be taken for it."""
