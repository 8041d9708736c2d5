"""Downloads: data sets, model folders, posters."""
