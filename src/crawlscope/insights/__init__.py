"""The read side of the records: progress, verdicts, timing and comparisons of crawls."""
