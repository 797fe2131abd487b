"""What the lab tells of itself: traces, metrics and logs, without what was said."""
