"""All facts out of a server and into another one: back-up, restore, move."""
