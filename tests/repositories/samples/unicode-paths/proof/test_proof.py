import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "größen und maße"))

import temperatur


class Proof(unittest.TestCase):
    def test_two_points(self):
        self.assertEqual([temperatur.celsius(each) for each in (32, -40, 212)], [0, -40, 100])
        self.assertIn("32", (ROOT / "日本語" / "メモ 一.txt").read_text(encoding="utf-8"))
