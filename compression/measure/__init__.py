"""What a result costs and gives: accuracy, its intervals, robustness, fairness, latency."""
