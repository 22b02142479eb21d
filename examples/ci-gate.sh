#!/usr/bin/env bash
# A step of CI that fails where a service has become too slow: examples/ci-gate.sh URL MODEL [REPLAY OPTIONS...]
#
# Exit codes: 0 every gate held, 1 one failed, 2 unusable input, 3 no verdict (the run is invalid or was interrupted, or
# the sample is too small to bound the percentile). Keep the folder as an artifact: its report.html shows what happened,
# and `phaseload gate FOLDER --slo ...` judges it anew. In GitHub Actions:
#
#     - run: examples/ci-gate.sh "$STAGING_URL" llama-3.1-8b --api-key-env STAGING_KEY
#     - uses: actions/upload-artifact@v4
#       if: always()
#       with: { name: load-test, path: load-test }
set -euo pipefail
url=$1 model=$2
shift 2
phaseload replay azure-conv --url "$url" --model "$model" --wait-ready 60s --max-context 4096 \
    --duration "${DURATION:-120}" --warmup "${WARMUP:-10}" --out "${OUT:-load-test}" \
    --slo "${SLO_TTFT:-ttft p50 < 10s}" --slo "errors < 1%" "$@"
