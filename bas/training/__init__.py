"""How it is trained: settings, batches, where features lie, the loop; one network, or many at once."""
