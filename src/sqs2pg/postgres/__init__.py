"""The PostgreSQL side: writing batches, and the books that make each message count once."""
