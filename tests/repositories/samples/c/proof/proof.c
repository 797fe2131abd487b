#include "ring.h"

int main(void) {
    struct ring ring = {0};
    int value = 0;
    ring_push(&ring, 7);
    ring_pop(&ring, &value);
    for (int each = 0; each < RING_SIZE; each++)
        if (!ring_push(&ring, each))
            return 1;
    return ring_push(&ring, 9) || ring.count != RING_SIZE || !ring_pop(&ring, &value) || value != 0;
}
