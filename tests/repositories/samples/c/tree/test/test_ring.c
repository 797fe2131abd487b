#include <stdio.h>

#include "ring.h"

static int failed;

static void check(int holds, const char *sentence) {
    printf("%s - %s\n", holds ? "ok" : "not ok", sentence);
    failed += !holds;
}

int main(void) {
    struct ring ring = {0};
    int value = 0;
    check(!ring_pop(&ring, &value), "nothing comes out of an empty ring");
    for (int each = 1; each <= RING_SIZE; each++)
        check(ring_push(&ring, each), "a value goes in");
    check(!ring_push(&ring, 99), "a full ring takes no more");
    for (int each = 1; each <= RING_SIZE; each++)
        check(ring_pop(&ring, &value) && value == each, "values come out in order");
    return failed != 0;
}
