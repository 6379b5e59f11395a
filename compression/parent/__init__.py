"""The model that a user brings: found, loaded, asked."""
