import unittest

from app.report import report


class Reports(unittest.TestCase):
    def test_a_marathon(self):
        self.assertEqual(report(42.195), "26.2 miles")
