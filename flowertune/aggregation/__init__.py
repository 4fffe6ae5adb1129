"""Average models bucket by bucket: no process ever holds a whole one. docs/guides/aggregation.md."""
