"""What user code is made of, what tells two versions of it apart, and how it travels."""
