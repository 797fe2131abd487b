import unittest

from clamp import clamp


class Proof(unittest.TestCase):
    def test_everywhere(self):
        self.assertEqual([clamp(each, 1, 3) for each in (-5, 1, 2, 9)], [1, 1, 2, 3])
