"""What the paper compares OPOM with: masks for everybody, for a person by activations (section 3.3)
and for single photos (Fig. 6)."""
