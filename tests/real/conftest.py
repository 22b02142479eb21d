"""The real servers, made once and started where a test asks for them."""

import os

import pytest

from .servers import Namespace, Unavailable, dynamo, install, llama


def pytest_collection_modifyitems(config, items):
    """Tests marked `real` need minutes and gigabytes: `make test-real` alone runs them."""
    if "real" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("real")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def namespace():
    """A network namespace, the servers installed. Where they can't be had a user's test is skipped, CI's fails."""
    try:
        install()
        made = Namespace()
    except Unavailable as reason:
        if os.environ.get("CI"):
            pytest.fail(f"no real servers: {reason}")
        pytest.skip(f"no real servers: {reason}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def aggregated(namespace, tmp_path_factory):
    with dynamo(namespace, tmp_path_factory.mktemp("kv"), "agg") as url:
        yield url


@pytest.fixture(scope="module")
def disaggregated(namespace, tmp_path_factory):
    with dynamo(namespace, tmp_path_factory.mktemp("kv"), "prefill", "decode", port=18100) as url:
        yield url


@pytest.fixture(scope="module")
def llamacpp(namespace):
    with llama(namespace) as (url, _):
        yield url
