"""What a person reads: report, comparison, plots."""
