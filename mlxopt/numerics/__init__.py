"""Functions of arrays, no trees: scalars of a step, sums and norms, matrices."""
