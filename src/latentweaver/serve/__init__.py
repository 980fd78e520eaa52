"""An OpenAI-compatible server whose `reasoning_effort` is a real dial: the steps of thought that each token may take.

app.py      routes, errors and streams          wire.py     what requests may say
worker.py   the thread that owns the engine     text.py     tokens into text, stop strings, penalties
guard.py    keys, sizes, slow and odd clients   metrics.py  what Prometheus reads
page/       a page to try it on
"""

from latentweaver.serve.settings import Settings as Settings


def run(model_name: str, host: str = "127.0.0.1", port: int = 8000, settings: Settings | None = None) -> None:
    """Load a model and serve it until SIGTERM or SIGINT, which lets running requests finish. See `running.run`."""
    from latentweaver.serve.running import run as start

    start(model_name, host, port, settings or Settings())
