"""Using a trained model: recommendations from Python, on the command line and over HTTP."""
