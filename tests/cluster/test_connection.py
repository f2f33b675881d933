"""Addresses and options are checked without Ray, and an error says what to do where it is missing."""

from __future__ import annotations

import socket

import pytest

from hfcompress.cluster import connection
from hfcompress.cluster.connection import RaySettings, check_cluster, ray_settings
from hfcompress.errors import ClusterError, MissingExtraError
from hfcompress.recipe import RayStep, RecoverStep


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "find_spec", lambda name: True)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_engines(installed: None) -> None:
    assert ray_settings("local") is None
    assert ray_settings("ray", "auto", 3, 2) == RaySettings("auto", 3, 2)
    with pytest.raises(ClusterError, match=r"'dask'.*local or ray"):
        ray_settings("dask")
    with pytest.raises(ClusterError, match="add --engine ray"):
        ray_settings("local", workers=2)


def test_a_missing_ray_is_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "find_spec", lambda name: None)
    for ask in (lambda: ray_settings("ray"), lambda: check_cluster(RaySettings())):
        with pytest.raises(MissingExtraError, match=r"pip install 'hfcompress\[ray\]'"):
            ask()


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", ":6379"])
def test_what_is_no_address(address: str, installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="host:port"):
        check_cluster(RaySettings(address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ClusterError, match="RAY_ADDRESS"):
        check_cluster(RaySettings())


def test_a_cluster_that_does_not_answer_is_an_error_at_once(installed: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        check_cluster(RaySettings(f"127.0.0.1:{port}"))
    with pytest.raises(ClusterError, match="cannot be reached"):
        check_cluster(RaySettings(f"127.0.0.1:{port}"))
    for address in (None, "auto", "local"):  # which Ray finds
        check_cluster(RaySettings(address))


def test_recipes() -> None:
    assert RecoverStep(engine="ray", ray=RayStep(address="head:6379", workers=4)).ray.cpus == 1
    with pytest.raises(ValueError, match="engine: ray"):
        RecoverStep(ray=RayStep(workers=4))
