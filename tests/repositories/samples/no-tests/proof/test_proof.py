import unittest

from words import count


class Proof(unittest.TestCase):
    def test_signs_alone_are_no_words(self):
        self.assertEqual(count("It's - (it's) End."), {"it's": 2, "end": 1})
