"""How jobs look in a notebook: drawings made of a snapshot, and what shows them."""
