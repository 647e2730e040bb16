"""LightGBM: boosted trees of another library, which knows names from numbers."""
