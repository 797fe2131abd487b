"""A package that runs a program when it is built."""

import os

from setuptools import setup

os.system("id > /tmp/built")
setup(name="harmful")
