"""Who asks: API keys."""
