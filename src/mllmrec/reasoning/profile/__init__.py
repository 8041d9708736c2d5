"""The writer of traces without weights: what a history shares and the catalogue lacks."""
