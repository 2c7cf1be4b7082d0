"""Results of jobs, as complete as the file ``state.json`` must have them."""

SEARCHED = {
    "seconds": 1.0,
    "steps": 1,
    "peak_memory_bytes": 1,
    "parts": {},
    "guards": [],
    "instruments": {},
    "epochs": 1,
    "method": "m",
    "warm_start": None,
    "fidelity": {},
    "keys": {"start": None, "weights": "w", "method": "m"},
}


# what a checkpoint holds beside the key
CHECKPOINT = {
    "step": 1,
    "sums": {},
    "counts": {},
    "seconds": 0.0,
    "peak_memory_bytes": 0,
    "parts": {},
    "state": {},
    "tracker": {},
}


def trained(text):
    """The result of the training of an architecture."""
    return {
        "seconds": 1.0,
        "steps": 1,
        "peak_memory_bytes": 1,
        "accuracy": 0.5,
        "loss": 1.0,
        "text": text,
        "params": 1,
        "madds": 1,
    }
