"""Image Classification: which digit a picture shows."""
