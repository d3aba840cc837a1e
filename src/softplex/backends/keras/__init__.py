"""Keras' own kinds of array: variables, which hold a tensor of its backend, and symbols, which stand for one."""
