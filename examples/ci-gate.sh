#!/usr/bin/env bash
# A step of CI that fails where a service has become too slow: examples/ci-gate.sh URL MODEL [REPLAY OPTIONS...]
#
# SLO is the file with the gates (examples/slo.toml), OUT the run's folder, BASELINE an earlier run to compare with and
# MAX_REGRESS how much worse than that the median TTFT may be.
#
# Exit codes: 0 every gate held, 1 one failed, 2 unusable input, 3 no verdict (the run is invalid or was interrupted, or
# the sample is too small to bound the percentile). Keep the folder as an artifact: its report.html shows what happened,
# and `phaseload gate FOLDER` judges it anew. Beside it lie OUT.xml (JUnit) and OUT.md (a comment for the pull request).
# In GitHub Actions, where gates become annotations and the job's summary as well:
#
#     - run: examples/ci-gate.sh "$STAGING_URL" llama-3.1-8b --api-key-env STAGING_KEY
#     - if: always() && github.event_name == 'pull_request'
#       run: gh pr comment "${{ github.event.number }}" --edit-last --create-if-none --body-file load-test.md
#     - if: always()
#       uses: actions/upload-artifact@v4
#       with: { name: load-test, path: load-test* }
set -uo pipefail
url=$1 model=$2
shift 2
out=${OUT:-load-test} slo=${SLO:-$(dirname "$0")/slo.toml} code=0
phaseload replay azure-conv --url "$url" --model "$model" --wait-ready 60s --max-context 4096 \
    --duration "${DURATION:-120}" --warmup "${WARMUP:-10}" --out "$out" --slo-file "$slo" "$@" || code=$?
[ "$code" = 2 ] && exit 2

against=()
[ -n "${BASELINE:-}" ] && against=(--baseline "$BASELINE" --max-regress "ttft p50 ${MAX_REGRESS:-10%}")
phaseload gate "$out" --slo-file "$slo" "${against[@]}" --junit "$out.xml" --markdown "$out.md" \
    ${GITHUB_ACTIONS:+--github} || exit $?
exit "$code" # of an interrupted run, say
