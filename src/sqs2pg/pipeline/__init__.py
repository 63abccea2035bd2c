"""From receive to acknowledge: the hops of a message in order, and what runs beside them."""
