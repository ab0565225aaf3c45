"""Golden numbers: this project's results against those of the reference implementations.

    python tests/parity FILE...

prints one line for each case of each JSON file, `ok` or the largest difference, and exits with 1 if
any case differs or is of an unknown kind. There is one plain function for each topic: its keyword
arguments are a case's inputs, and it returns a dict of the outputs; both have the names that the
files use. Parameters and inputs are functions of a name or a seed (`inputs.py`), so files hold only
numbers.

Tolerances: models 1e-4 of the quantity's largest value; indices and shapes exact; schedules 1e-6 of
the base rate; probabilities 1e-6; accuracies 1e-6 of 100%; pixels 2 of 255 gray levels (another
resize implementation).
"""
