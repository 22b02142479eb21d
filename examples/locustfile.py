"""A trace as a user of plain Locust: `locust -f examples/locustfile.py --headless --host http://127.0.0.1:8000`.

Any option of `phaseload replay` is an attribute of its name, with underscores; a name that is no option is refused.
Locust's web page, --processes, --master and --worker work as ever.
"""

from loadgen import TraceUser


class Conversations(TraceUser):
    trace, model = "azure-conv", "llama3-8b"
    duration, warmup = 5.0, 1.0  # seconds of counted arrivals, after those of the warm-up
    max_context = 4096  # tokens
    slo = ("ttft p50 < 10s", "errors < 1%")
