"""Images made on this machine, without a registry: `python -m sandbox.images build NAME...`."""
