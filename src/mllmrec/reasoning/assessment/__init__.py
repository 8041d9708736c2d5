"""Traces under assessment: what each knows, does and is worth."""
