"""From body to row: decode, convert and mask one message. No I/O."""
