"""Random Cut Forest: how much a point would disturb trees of random cuts."""
