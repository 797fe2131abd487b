"""The egress broker: makes the requests of runs that may reach the world, and nothing a rule forbids."""
