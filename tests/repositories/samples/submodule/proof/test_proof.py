import unittest

from app.report import report


class Proof(unittest.TestCase):
    def test_ten(self):
        self.assertEqual(report(16.09344), "10.0 miles")
