"""What the records say about crawls: progress, verdicts, timing, comparisons."""
