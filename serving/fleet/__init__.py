"""What should exist: endpoints, their variants, their workers."""
