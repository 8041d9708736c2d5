"""The whole catalogue: retrieving from it and ranking it."""
