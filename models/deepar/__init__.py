"""DeepAR: forecasts with their uncertainty."""
