#pragma once

#include <cstddef>
#include <vector>

class Matrix {
public:
    Matrix(std::size_t rows, std::size_t columns, std::vector<double> values);
    double at(std::size_t row, std::size_t column) const;
    Matrix transposed() const;

private:
    std::size_t rows_, columns_;
    std::vector<double> values_;
};
