"""The commands: flags, help and one call each."""
