#ifndef RING_H
#define RING_H

#define RING_SIZE 4

/* A queue of at most RING_SIZE values. All zeroes is an empty one. */
struct ring {
    int values[RING_SIZE];
    unsigned first, count;
};

int ring_push(struct ring *ring, int value); /* 1, or 0 if it is full */
int ring_pop(struct ring *ring, int *value); /* 1, or 0 if it is empty */

#endif
