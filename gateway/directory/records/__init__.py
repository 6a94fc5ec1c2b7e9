"""Facts as records in Redis: their names, their layout, and the codec of each kind."""
