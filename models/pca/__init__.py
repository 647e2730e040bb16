"""PCA: many columns in the few directions that vary most."""
