"""Read back what a run wrote about itself."""
