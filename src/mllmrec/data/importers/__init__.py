"""Readers of published data sets and of tables of one's own: files located, read, cleaned and split."""
