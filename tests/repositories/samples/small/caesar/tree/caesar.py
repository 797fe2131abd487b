"""A very old cipher."""


def shift(text, by):
    """Each lower-case letter moved on by so many places; everything else stays."""
    made = ""
    for each in text:
        if "a" <= each <= "z":
            made += chr(ord(each) + by)
        else:
            made += each
    return made
