"""What can be typed: verbs, in a terminal and in a notebook's magic."""
