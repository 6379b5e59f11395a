"""What is served: models by name, their versions, how they are loaded, swapped and asked."""
