"""What the figures mean, as the report prints it: this is where tools disagree. docs/metrics.md says more."""

DEFINITIONS = (
    (
        "TTFT",
        "From the instant just before the request's first byte was written to the arrival, by the kernel's "
        "clock, of the first event that carries a token (content, reasoning or tool-call text). A role-only"
        " or empty chunk carries none.",
    ),
    (
        "TTFT from due",
        "The same from the instant when the trace says the request should have been sent: it contains the "
        "client's lateness and the time to connect, so coordinated omission can't hide.",
    ),
    (
        "TPOT",
        "(last token - first token) / (output tokens - tokens in the first event). Undefined, not 0, for one token.",
    ),
    (
        "ITL",
        "One gap for each read that carries tokens. Chunks are not tokens; tokens in the same read add no "
        "gaps of zero.",
    ),
    (
        "Longest stall",
        "The largest ITL of a request: TPOT hides freezes.",
    ),
    (
        "E2E",
        "From the first byte sent to the last token; the usage chunk after it doesn't count.",
    ),
    (
        "Lateness",
        "How long after its due instant a request was started: the load generator's own fault.",
    ),
    (
        "Client lag",
        "How long after the kernel had a first token the client read it: a diagnostic, because instants are"
        " the kernel's.",
    ),
    (
        "Both ends",
        "A read with several token-bearing events bounds all but its last only from above. Quantiles are "
        "computed at both ends of that bracket: within 5 % the run is valid, within 20 % suspect, else "
        "invalid.",
    ),
    (
        "Quantile",
        "Linear between order statistics. Failures rank as infinitely slow: quantile(q n / n_ok), unbounded"
        " above n_ok / n, so that an endpoint can't improve its p99 by failing.",
    ),
    (
        "Interval",
        "Distribution-free: the order statistics that hold the true quantile with 95 %. They exist from 6 "
        "requests on for p50, 59 for p95, 299 for p99, 2,995 for p99.9; with fewer no figure is printed.",
    ),
    (
        "Counted",
        "Due inside the window, not in warm-up. They are followed to their end or their time limit; what is"
        " still open then is cut, and a failure.",
    ),
    (
        "Goodput",
        "Requests per second of the window that met every objective.",
    ),
    (
        "Tokens per second",
        "Output tokens that arrived inside the window, a stream's spread evenly from its first to its last.",
    ),
    (
        "In flight at send",
        "The target's requests that were open when this one was sent, itself included, from the recorded "
        "intervals of all workers.",
    ),
    (
        "Overloaded",
        "The backlog and the time per token from due to done both grew from third to third of the window.",
    ),
)
