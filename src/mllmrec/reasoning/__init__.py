"""Chains of thought about histories: drafted, refined, assessed, and handed to training as hints."""
