"""Counts the words of a text: words.py < TEXT"""

import sys
from collections import Counter


def count(text):
    """How often each word is there."""
    return dict(Counter(text.split()))


if __name__ == "__main__":
    for word, times in sorted(count(sys.stdin.read()).items()):
        print(f"{times:6} {word}")
