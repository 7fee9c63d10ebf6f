"""What the paper compares OPOM with: universal masks and one by activations (section 3.3)."""
