import unittest

from shop.prices import price


class Proof(unittest.TestCase):
    def test_both_changes_are_there(self):
        self.assertEqual(price(9.99, currency="CHF"), "11.99 CHF")
        self.assertEqual(price(10), "12.00 EUR")
