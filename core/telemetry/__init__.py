"""What the lab tells a collector: traces, metrics and logs, without content."""
