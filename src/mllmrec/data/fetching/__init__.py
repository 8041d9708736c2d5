"""What comes from elsewhere: data sets, model folders, posters."""
