/* The SQS calls in the AWS JSON 1.0 protocol. Signatures are not looked at. */
#ifndef CALLS_H
#define CALLS_H

#include "http.h"

void call_handle(Connection *c, const Request *r);
void call_error(Connection *c, int status, const char *type, const char *query_code, const char *message);
/* Gives waiting receives what has become visible since the last round. */
void calls_serve_waiters(void);
void call_wait_over(Connection *c);      /* a long poll's time is up: an empty answer */
void call_wait_abandon(Connection *c);   /* its connection went away */

#endif
