"""The model process: one for each device, and the only one that holds models and loads torch.

The worker (:mod:`gateway.work`) reads and decodes, hands voxels over in shared memory, gets labels back in
shared memory, measures and writes. Messages (``protocol``) are JSON lines on a socket; the memory itself
(``share``) goes along as file descriptors. No pickle, no file.

The commands that try a model (:mod:`gateway.cli.model_process`) start one too, and ask it as the worker does.

``client`` is the worker's end: it starts the process, watches it (``watchdog``), ends it when it hangs, and
starts it again. ``host`` is the process: it shuts itself in (``sandbox``) before it loads anything, keeps
models warm within a budget (``warm``), and runs one step at a time of whichever prediction is due
(``schedule``), so that an urgent one overtakes at the next tile.
"""
