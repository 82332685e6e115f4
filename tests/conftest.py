"""Settings of every test: repeatable examples, and one thread, as the matrices are tiny."""

import torch
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=40, print_blob=True)
settings.load_profile("repeatable")
torch.set_num_threads(1)
