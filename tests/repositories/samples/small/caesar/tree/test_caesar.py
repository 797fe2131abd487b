import unittest

from caesar import shift


class Shift(unittest.TestCase):
    def test_within(self):
        self.assertEqual(shift("abc", 1), "bcd")

    def test_around(self):
        self.assertEqual(shift("xyz!", 3), "abc!")
