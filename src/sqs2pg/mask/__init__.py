"""Masking: one operator per field, compiled once at start, called for each distinct value.

`canonical` gives the bytes that all spellings of a value share, each operator has its own module,
and `registry` compiles a field's operator. No I/O here.
"""
