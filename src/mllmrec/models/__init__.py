"""Models that score candidates and generate text, behind two narrow protocols."""
