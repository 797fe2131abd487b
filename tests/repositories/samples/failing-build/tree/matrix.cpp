#include "matrix.hpp"

#include <stdexcept>
#include <utility>

Matrix::Matrix(std::size_t rows, std::size_t columns, std::vector<double> values)
    : rows_(rows), columns_(columns), values_(std::move(values)) {
    if (values_.size() != rows * columns)
        throw std::invalid_argument("a matrix has rows times columns values");
}

double Matrix::at(std::size_t row, std::size_t column) {
    if (row >= rows_ || column >= columns_)
        throw std::out_of_range("there is no such place");
    return values_[row * columns_ + column];
}

Matrix Matrix::transposed() const {
    Matrix turned(columns_, rows_, std::vector<double>(values_.size()));
    for (std::size_t row = 0; row < rows_; row++)
        for (std::size_t column = 0; column < columns_; column++)
            turned.values_[row * columns_ + column] = at(row, column);
    return turned;
}
