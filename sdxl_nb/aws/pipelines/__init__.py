"""What may a start of the pipeline change? Its parameters, and what follows from other values of them."""
