/* The event loop's descriptor, for whoever has a socket to watch. */
#ifndef LOOP_H
#define LOOP_H

extern int loop_fd;

#endif
