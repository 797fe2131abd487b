import unittest

from palindromes import is_palindrome


class Palindromes(unittest.TestCase):
    def test_lower(self):
        self.assertTrue(is_palindrome("level"))
        self.assertFalse(is_palindrome("levels"))

    def test_case(self):
        self.assertTrue(is_palindrome("Level"))
