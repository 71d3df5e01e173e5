"""A session for notebooks: runs beside the cells that ask for them."""
