"""Turns a fine-tuned text classifier (the parent) into a bundle: small, fast, verified against its parent."""
