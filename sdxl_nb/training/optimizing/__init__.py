"""How do gradients move weights? A configuration in; an optimizer and its rates out."""
