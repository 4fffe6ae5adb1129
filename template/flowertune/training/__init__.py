"""The training engine: tokens and masks, the order of the rows, one client's steps."""
