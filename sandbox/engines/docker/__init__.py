"""Docker as an engine: hardened containers by the API, and the images they are made of."""
