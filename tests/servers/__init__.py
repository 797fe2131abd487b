"""Servers of ours that stand for those of the world: real sockets, real TLS, and what they say is a test's to say."""
