"""What it meant: result files, digests, summaries, gates, comparison, plots and HTML."""
