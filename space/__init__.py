"""The demo: a Gradio app on top of the public API of facestyle."""
