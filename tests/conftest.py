"""Settings of the whole suite."""

import torch

# At the tests' sizes a second thread costs more than it saves.
torch.set_num_threads(1)
