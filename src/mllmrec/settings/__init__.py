"""One pydantic model for each stage: the only description of a knob (text, unit, bound, default)."""
