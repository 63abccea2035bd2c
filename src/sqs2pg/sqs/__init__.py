"""The SQS side: the client (signer, connections, wire format) and the queue that holds leases."""
