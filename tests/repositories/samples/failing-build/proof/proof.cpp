#include "matrix.hpp"

int main() {
    const Matrix matrix(1, 3, {7, 8, 9});
    return matrix.transposed().at(2, 0) != 9 || matrix.transposed().transposed().at(0, 1) != 8;
}
