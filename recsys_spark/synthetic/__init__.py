"""Seeded synthetic logs of any size, made by Spark, with counted flaws: to try, to test and to time a night with."""
