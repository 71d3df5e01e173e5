"""One training loop under Ray Train and DeepSpeed, and its objectives."""
