"""Raw files of published data sets and of anybody's tables: found, read with file:line errors, cleaned, split."""
