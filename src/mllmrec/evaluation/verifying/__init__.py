"""Every figure of a RUN again, by a second and simpler implementation."""
