"""JAX: its arrays, and what it traces of a call."""
