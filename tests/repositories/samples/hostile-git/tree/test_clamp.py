import unittest

from clamp import clamp


class Clamp(unittest.TestCase):
    def test_above(self):
        self.assertEqual(clamp(5, 1, 3), 3)

    def test_within(self):
        self.assertEqual(clamp(2, 1, 3), 2)
