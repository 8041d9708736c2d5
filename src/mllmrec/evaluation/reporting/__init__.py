"""One page of all that is known of a dataset's models."""
