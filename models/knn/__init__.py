"""k-NN: the training rows are the model, and the nearest of them vote."""
