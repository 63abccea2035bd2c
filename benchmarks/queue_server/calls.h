/* The SQS calls in the AWS JSON 1.0 protocol. Signatures are not checked. */
#ifndef CALLS_H
#define CALLS_H

#include "http.h"

extern const Handler call_handler;

#endif
