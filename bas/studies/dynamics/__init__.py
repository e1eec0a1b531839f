"""An encoder is fine-tuned, and its embeddings are watched."""
