"""The PostgreSQL side: write batches, and keep the books that make each message count once."""
