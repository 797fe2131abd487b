"""Words that read the same from both ends."""


def is_palindrome(word):
    """Whether a word reads the same from both ends, whatever its case."""
    return word == word[::-1]
