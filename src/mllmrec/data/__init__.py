"""Interaction files: importing, reading, splitting, candidate drawing, prompts."""
