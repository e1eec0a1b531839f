"""How many listeners heard each emotion: encoder x attention, and what attention looks at."""
