"""Other estimators' results on the command line and from Python."""
