"""The command `madlab`: an ordinary client of the door."""
