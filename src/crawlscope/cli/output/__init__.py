"""The output of commands: answers of the service for a terminal."""
