"""Every architecture of a space trained: did the search work, did the choice matter?"""
