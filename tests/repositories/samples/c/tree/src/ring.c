#include "ring.h"

int ring_push(struct ring *ring, int value) {
    ring->values[(ring->first + ring->count) % RING_SIZE] = value;
    ring->count++;
    return 1;
}

int ring_pop(struct ring *ring, int *value) {
    if (ring->count == 0)
        return 0;
    *value = ring->values[ring->first];
    ring->first = (ring->first + 1) % RING_SIZE;
    ring->count--;
    return 1;
}
