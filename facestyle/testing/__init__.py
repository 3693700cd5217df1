"""What tests of facestyle and dry runs of its users need: a local server that speaks the Hugging Face Hub's API."""
