"""Train every architecture of a space: did the search work, and did the choice matter?"""
