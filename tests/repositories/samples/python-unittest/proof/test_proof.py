import unittest

from intervals import merge


class Proof(unittest.TestCase):
    def test_contained_and_touching(self):
        self.assertEqual(merge([(1, 2), (2, 3), (0, 9), (10, 11)]), [(0, 9), (10, 11)])
        self.assertEqual(merge([(1, 2), (2, 3)]), [(1, 3)])
