"""Photos on disk: who the people are (`people`) and what their pixels are (`images`)."""
