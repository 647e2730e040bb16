"""Linear Learner: one weight a column, and a threshold."""
