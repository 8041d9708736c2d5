"""The assessment of traces: leakage, modality and prediction consistency, confidence, and what is kept."""
