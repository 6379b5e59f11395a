"""Everything that trains: fine-tuning, and distillation from a parent."""
