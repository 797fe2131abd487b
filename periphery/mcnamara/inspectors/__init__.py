"""Our own ways of looking at one file. Each is a function from a file and its text to hits, in a file of its own.

They run in a process of their own (`periphery.mcnamara.own`), since parsing hostile text may end one.
"""
