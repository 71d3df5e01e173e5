"""What every layer uses: errors, seeds, storage, HTTP, names that stand for objects."""
