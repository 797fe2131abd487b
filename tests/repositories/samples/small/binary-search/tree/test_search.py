import unittest

from search import find


class Find(unittest.TestCase):
    def test_each(self):
        values = [1, 3, 5, 7, 9]
        self.assertEqual([find(values, each) for each in values], [0, 1, 2, 3, 4])

    def test_not_there(self):
        self.assertEqual(find([1, 3], 2), -1)
        self.assertEqual(find([], 2), -1)
