import unittest

from intervals import length, merge


class Merging(unittest.TestCase):
    def test_apart(self):
        self.assertEqual(merge([(5, 6), (1, 2)]), [(1, 2), (5, 6)])

    def test_overlapping(self):
        self.assertEqual(merge([(1, 4), (3, 6)]), [(1, 6)])

    def test_contained(self):
        self.assertEqual(merge([(1, 10), (2, 3)]), [(1, 10)])

    def test_length(self):
        self.assertEqual(length([(0, 4), (1, 2), (6, 7)]), 5)


if __name__ == "__main__":
    unittest.main()
