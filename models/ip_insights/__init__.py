"""IP Insights: which addresses go with whom."""
