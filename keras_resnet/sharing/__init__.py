"""Runs on the Hugging Face hub: what is uploaded, and the model card."""
