"""What OPOM is compared with."""
