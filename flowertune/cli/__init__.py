"""The command line: options, help and examples of every command. The work is done below."""
