"""The PostgreSQL side: write batches, and keep the books that make each message count once."""

from sqs2pg.postgres import lean_psycopg as lean_psycopg  # before any module imports the driver
