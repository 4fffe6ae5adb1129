"""What a run trains on: how much of it is supervised, what is cut, what a row looks like."""
