"""Training of recognisers: heads, augmentation, input pipeline, steps, checkpoints, the loop."""
