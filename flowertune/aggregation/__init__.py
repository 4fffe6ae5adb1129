"""Average models bucket by bucket: no process holds a whole one (docs/guides/aggregation.md)."""
