"""Many runs of one app side by side: methods, seeds and settings, under one budget."""
