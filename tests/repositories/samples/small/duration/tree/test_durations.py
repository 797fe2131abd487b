import unittest

from durations import shown


class Durations(unittest.TestCase):
    def test_long(self):
        self.assertEqual(shown(45296), "12:34:56")

    def test_short(self):
        self.assertEqual(shown(3661), "1:01:01")
