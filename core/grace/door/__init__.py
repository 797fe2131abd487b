"""The HTTP door of the lab: everything that comes in from outside comes in here."""
