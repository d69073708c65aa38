"""The command line. A command imports what it needs when it runs, so that help comes at once.

It may import every room.
"""
