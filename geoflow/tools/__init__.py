"""What looks at job types and at the machine, and needs no notebook."""
