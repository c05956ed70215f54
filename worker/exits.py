"""How an attempt's process says that it ended, to the supervisor that started it."""

DONE = 0  # the results are committed and the job has succeeded
FAILED = 1  # the failure is already written to the job's row
STOPPED = 75  # asked to stop by SIGTERM: the last step boundary is in a checkpoint
LOST = 77  # another process of its training is gone, and it hangs waiting for that one
STALE = 76  # the attempt no longer holds its job, or nobody supervises it any more
