"""Candidate lists: drawn, imported, frozen in files that are named by their protocol."""
