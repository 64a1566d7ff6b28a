"""The pure core: nouns and decisions, without clock, file or process."""
