import unittest

from unique import unique


class Unique(unittest.TestCase):
    def test_repeated(self):
        self.assertEqual(unique([1, 1, 2]), [1, 2])

    def test_order(self):
        self.assertEqual(unique([3, 1, 3, 2, 1]), [3, 1, 2])
