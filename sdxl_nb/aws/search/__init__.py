"""How are settings searched on rented GPUs? One configuration, a search space, many jobs, the best of them a Run."""
