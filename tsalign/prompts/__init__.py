"""What models are asked in words, and how their answers are read."""
