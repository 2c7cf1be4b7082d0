"""How processes are started: those that load data, and those that run jobs."""

import multiprocessing
from multiprocessing.context import BaseContext

# The server imports these modules once. The processes that it forks have them from the beginning.
# The first optimiser of a process imports torch._dynamo, which takes as long as torch itself.
PRELOADED = ["supernet.data.dataset", "supernet.runs.executor", "torch._dynamo"]


def worker_context() -> BaseContext:
    """The multiprocessing context that starts worker processes.

    It never forks this process, because the threads of this process would be missing in the copy.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context
