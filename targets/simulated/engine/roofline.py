"""Step time of one GPU replica: the roofline with overheads that was fitted to LLM-Inference-Bench.

    step = max((W + kv * C) / (BW * MBU), flops / (peak * MFU)) + c0 + c1 * sequences
    W = w (P - E)                            weight bytes read, w bytes a weight, E embedding parameters
    flops of B decodes  = 2 (P - E) B + 4 h L C                       C: sum of the contexts
    flops of a prefill  = 2 (P - 2E) tokens + 2 h L (to^2 - from^2) + 2 E (for the one token that comes out)

A chunk of a prompt, tokens `from` to `to`, telescopes to the whole prompt's attention. Tensor parallelism divides the
weights and the work and adds two all-reduces a layer. Speculative decoding verifies `draft` + 1 tokens a sequence a
step, and the drafting itself costs `draft_cost` a drafted token.

With B fixed, C grows by the same amount each step, so both branches of the maximum are linear in the step number: a
stretch of n steps has a closed form (`span`) and so has its inverse (`steps_by`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a transformer: parameters, layers, hidden size, KV bytes a token (fp16), embedding parameters."""

    name: str
    parameters: float
    layers: int
    hidden: int
    kv_bytes: float
    embedding: float
    context: int


@dataclass(frozen=True, slots=True)
class Roofline:
    """Seconds, each per unit: of weights, of a context token (memory, compute), of a decoded and a prefilled token."""

    weights: float
    kv: float
    attention: float
    decoded: float
    prefilled: float
    head: float
    c0: float
    c1: float
    reduce: float = 0.0  # all-reduce seconds a token
    gain: float = 1.0  # tokens a sequence a step
    verified: int = 1  # tokens a sequence computes a step
    draft: float = 0.0  # seconds a step for drafting

    def mixed(
        self, decodes: int, context: float, tokens: float, squares: float, prompts: float, ending: float
    ) -> float:
        """One step: `decodes` sequences of `context` tokens together, and chunks of `prompts` prompts. `tokens` in the
        chunks, `squares` the sum of to^2 - from^2 over them, `ending` prompts complete with this step."""
        computed = decodes * self.verified
        compute = self.decoded * computed + self.attention * context * self.verified
        compute += self.prefilled * tokens + self.attention * 0.5 * squares + self.head * ending
        memory = self.weights + self.kv * context
        fixed = self.c0 + self.c1 * (decodes + prompts) + self.reduce * (computed + tokens)
        return (memory if memory > compute else compute) + fixed + (self.draft if decodes else 0.0)

    def decode(self, decodes: int, context: float) -> float:
        return self.span(decodes, context, 1)

    def span(self, decodes: int, context: float, steps: int) -> float:
        """`steps` decode steps in a row, the first one at `context` tokens together."""
        work = self.decoded * decodes * self.verified
        attention = self.attention * self.verified
        memory = self.weights + self.kv * context
        compute = work + attention * context
        total = steps * (self.c0 + self.draft + (self.c1 + self.reduce * self.verified) * decodes)
        growth = decodes * self.gain
        later = context + growth * (steps - 1)
        memory_later = self.weights + self.kv * later
        compute_later = work + attention * later
        if memory >= compute and memory_later >= compute_later:
            return total + 0.5 * steps * (memory + memory_later)
        if compute >= memory and compute_later >= memory_later:
            return total + 0.5 * steps * (compute + compute_later)
        # The two lines cross inside the stretch: the first `turn` steps lie on one, the others on the other.
        crossing = (self.weights - work) / (attention - self.kv)
        turn = min(steps - 1, int((crossing - context) / growth) + 1)
        middle = context + growth * turn
        before, after = (self.kv, self.weights), (attention, work)
        if compute > memory:
            before, after = after, before
        total += turn * (before[1] + before[0] * 0.5 * (context + middle - growth))
        return total + (steps - turn) * (after[1] + after[0] * 0.5 * (middle + later))

    def steps_by(self, decodes: int, context: float, seconds: float) -> int:
        """The step that is going on, or just ends, `seconds` (> 0) after the first one began; counted from 1."""
        first = self.span(decodes, context, 1)
        slope = self.span(decodes, context, 2) - 2 * first
        if slope > first * 1e-9:
            half = first - 0.5 * slope
            guess = int((sqrt(half * half + 2 * slope * seconds) - half) / slope) + 1
        else:
            guess = int(seconds / first) + 1
        while self.span(decodes, context, guess) < seconds:
            guess += 1
        while guess > 1 and self.span(decodes, context, guess - 1) >= seconds:
            guess -= 1
        return guess
