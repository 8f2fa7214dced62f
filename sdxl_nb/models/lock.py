"""One thread at a time builds models.

While transformers, diffusers and accelerate load one, they change `torch.nn.Module` itself and the functions that draw
first values, for the whole process: a layer that another thread makes meanwhile has no values, says nothing, and
computes with what lies in memory; and two that load at once may leave it so for good. peft draws from torch's one
generator. A notebook has such threads: a playground loads a base while a cell trains.
"""

import threading

ALONE = threading.RLock()  # `with ALONE:` around whatever makes modules
