"""Traces as they are written: drafted, refined, and kept so that a crash costs nothing."""
