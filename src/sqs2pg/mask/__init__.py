"""Masking: one operator a field, compiled once at start, called for each distinct value.

`canonical` gives the bytes that equal values share, one module an operator masks them, `policy`
puts both together from the settings. No I/O here.
"""
