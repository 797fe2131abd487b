#include <cstdio>

#include "matrix.hpp"

int main() {
    const Matrix matrix(2, 3, {1, 2, 3, 4, 5, 6});
    const Matrix turned = matrix.transposed();
    if (turned.at(2, 0) != 3 || turned.at(0, 1) != 4) {
        std::puts("FAIL: transposed");
        return 1;
    }
    std::puts("PASS: transposed");
}
