"""What `weights=` means."""
