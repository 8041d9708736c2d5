"""Blends of RUNs: what does each recommender add to the others? Read `fitting.py`, `parts.py`, `stage.py`."""
