"""What HTTP clients see, one file a face. Each route declares to the guard what it guards."""
