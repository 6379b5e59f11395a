"""Removes what a fine-tuned classifier does not need: vocabulary, heads, neurons, whole layers. Never masks."""
