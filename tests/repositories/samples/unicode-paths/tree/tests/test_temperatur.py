import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "größen und maße"))

import temperatur  # noqa: E402


class Temperatur(unittest.TestCase):
    def test_wasser(self):
        self.assertEqual(temperatur.celsius(212), 100)

    def test_the_note_is_there(self):
        self.assertIn("摂氏", (ROOT / "日本語" / "メモ 一.txt").read_text(encoding="utf-8"))
