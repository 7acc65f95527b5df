"""The other sides, each a program as good as we can write it, with why it is fair."""
