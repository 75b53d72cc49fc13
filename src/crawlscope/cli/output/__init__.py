"""What the command line shows: answers of the service laid out for a terminal."""
