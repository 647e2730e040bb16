"""Facts about a server that is killed at any moment, in the middle of whatever it was doing."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.cloud import answers, client, container, make_config, make_model, production, said, settled
from tests.server import Server, serve

WORDS = ("one", "two", "three")
AT_ONCE = {"SERVING_SETTLE_SECONDS": "0"}


def prepare(server: Server) -> None:
    """Models and configurations for the rest of the test."""
    sagemaker = client(server)
    for word in WORDS:
        make_model(sagemaker, word, container(answers(server, word)))
        make_config(sagemaker, word, production(word))


def change(sagemaker: Any, dice: random.Random, over: threading.Event) -> None:
    """Create, update, reweigh and delete two endpoints as fast as they may be, until told to stop or nobody
    answers."""
    while not over.is_set():
        name, config = dice.choice(("a", "b")), dice.choice(WORDS)
        weights = [{"VariantName": "AllTraffic", "DesiredWeight": dice.random(), "DesiredInstanceCount": 2}]
        calls = (
            (sagemaker.create_endpoint, {"EndpointConfigName": config}),
            (sagemaker.update_endpoint, {"EndpointConfigName": config}),
            (sagemaker.update_endpoint, {"EndpointConfigName": config}),
            (sagemaker.update_endpoint_weights_and_capacities, {"DesiredWeightsAndCapacities": weights}),
            (sagemaker.delete_endpoint, {}),
        )
        call, params = dice.choice(calls)
        try:
            call(EndpointName=name, **params)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "ServiceUnavailable":
                return  # killed
            assert "ValidationException" == code, error
        except BotoCoreError:
            return  # killed


def check(server: Server) -> None:
    """Every endpoint that is there serves what it says it serves, with the instances it should have, and takes the next
    change."""
    sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
    listed = [one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]]
    for name in listed:
        described = settled(sagemaker, name)
        (variant,) = described["ProductionVariants"]
        assert "InService" == described["EndpointStatus"], described
        assert variant["DesiredInstanceCount"] == variant["CurrentInstanceCount"]
        if variant["CurrentWeight"]:
            assert f"{described['EndpointConfigName']}:x" == said(runtime, name)
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName="one")
        assert "one" == settled(sagemaker, name)["EndpointConfigName"]
    assert sorted(listed) == sorted(server.endpoints())


@pytest.mark.timeout(240)
def test_whatever_kill_9_interrupts_the_next_start_makes_whole(tmp_path: Path) -> None:
    """Killed five times amid changes: the next start makes it whole, and is killed in its turn."""
    dice = random.Random(20261121)
    for life in range(6):
        with serve(tmp_path, "--allow-code", environment=AT_ONCE) as server:
            if life == 0:
                prepare(server)
            check(server)
            if life == 5:
                break
            over = threading.Event()
            changing = threading.Thread(target=change, args=(client(server), random.Random(dice.random()), over))
            changing.start()
            threading.Event().wait(dice.uniform(0.1, 1.0))  # the moment of the fault, not a wait for anything
            server.process.kill()
            server.process.wait()
            over.set()
            changing.join(60)


def test_a_crash_between_any_two_writes_of_an_update_leaves_one_of_two_configurations(tmp_path: Path) -> None:
    """Never a mix: two variants of one endpoint always answer from the same deployment."""
    for now, following in (("one", "two"), ("two", "one"), ("one", "two"), ("two", "")):
        with serve(tmp_path, "--allow-code", environment=AT_ONCE) as server:
            sagemaker, runtime = client(server), client(server, "sagemaker-runtime")
            if not server.endpoints():
                for word in WORDS[:2]:
                    make_model(sagemaker, word, container(answers(server, word)))
                    make_config(sagemaker, word, production(word, name="left"), production(word, name="right"))
                sagemaker.create_endpoint(EndpointName="e", EndpointConfigName=now)
            described = settled(sagemaker, "e")
            said_by = {said(runtime, "e", TargetVariant=name) for name in ("left", "right")}
            assert (now, {f"{now}:x"}) == (described["EndpointConfigName"], said_by)
            if following:
                sagemaker.update_endpoint(EndpointName="e", EndpointConfigName=following)
                server.process.kill()
                server.process.wait()
