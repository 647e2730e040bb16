"""What happened: metrics and logs."""
