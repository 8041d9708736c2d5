"""Frozen candidate lists ranked by a model, and the RUN that comes of it."""
