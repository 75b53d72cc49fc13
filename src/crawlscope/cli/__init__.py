"""The commands on the user's side."""
