"""Temperaturen."""


def celsius(fahrenheit):
    """Grad Celsius."""
    return (fahrenheit - 0) * 5 / 9
