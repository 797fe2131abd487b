"""Policy: who may do what, decided in plain code, on an identity that comes from the channel."""
