"""Job types: the contract, how they are found, and their typed form."""
