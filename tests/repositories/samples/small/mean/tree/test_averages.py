import unittest

from averages import mean


class Mean(unittest.TestCase):
    def test_some(self):
        self.assertEqual(mean([1, 2, 6]), 3)

    def test_none(self):
        self.assertEqual(mean([]), 0)
