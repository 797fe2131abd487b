import unittest

from shop.prices import price


class Prices(unittest.TestCase):
    def test_the_number_comes_first(self):
        self.assertTrue(price(10).startswith("12"))
