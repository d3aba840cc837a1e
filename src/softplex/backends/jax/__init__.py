"""JAX arrays, traced or not."""
