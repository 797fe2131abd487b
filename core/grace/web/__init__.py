"""The page: files that a browser loads; everything they show comes from `/api/v1`."""
