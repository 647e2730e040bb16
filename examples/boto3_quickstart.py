"""Deploy, call, update and delete a model with nothing but boto3, as on SageMaker.

Where SageMaker is, boto3 finds in its own environment variables::

    SERVING_FILE_ROOTS=models/artifacts serving up &
    export AWS_ENDPOINT_URL_SAGEMAKER=http://127.0.0.1:8080 AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME=http://127.0.0.1:8080
    export AWS_DEFAULT_REGION=us-east-1 AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any
    python examples/boto3_quickstart.py BLUE_ARTIFACT GREEN_ARTIFACT < rows.csv

The artifacts are ``s3://`` or ``file://`` URLs of two models that take the same CSV.
"""

from __future__ import annotations

import sys
import time

import boto3

ROLE = "arn:aws:iam::123456789012:role/any"  # SageMaker wants one; nothing is assumed here
began = time.perf_counter()


def say(what: object) -> None:
    """A line of the transcript."""
    print(f"{time.perf_counter() - began:6.2f} s  {what}", flush=True)


def variant(name: str, model: str, weight: float, instances: int = 1) -> dict[str, object]:
    """A production variant."""
    return {
        "VariantName": name,
        "ModelName": model,
        "InstanceType": "ml.m5.large",
        "InitialInstanceCount": instances,
        "InitialVariantWeight": weight,
    }


def main(blue: str, green: str, rows: bytes) -> None:
    """Create a model, a config and an endpoint; wait, call, update, change weights, delete."""
    sagemaker, runtime = boto3.client("sagemaker"), boto3.client("sagemaker-runtime")
    in_service = sagemaker.get_waiter("endpoint_in_service")

    def call() -> str:
        answer = runtime.invoke_endpoint(
            EndpointName="quickstart", ContentType="text/csv", Accept="text/csv", Body=rows
        )
        return f"{answer['InvokedProductionVariant']} answers {answer['Body'].read().decode().split()}"

    for name, url in (("blue", blue), ("green", green)):
        container = {"Image": "any", "ModelDataUrl": url}
        made = sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        say(f"created {made['ModelArn']}")
    sagemaker.create_endpoint_config(EndpointConfigName="one", ProductionVariants=[variant("blue", "blue", 1.0)])
    made = sagemaker.create_endpoint(EndpointName="quickstart", EndpointConfigName="one")
    say(f"created {made['EndpointArn']}")
    in_service.wait(EndpointName="quickstart", WaiterConfig={"Delay": 1})
    say("in service")
    say(call())

    both = [variant("blue", "blue", 0.5), variant("green", "green", 0.5)]
    sagemaker.create_endpoint_config(EndpointConfigName="two", ProductionVariants=both)
    sagemaker.update_endpoint(EndpointName="quickstart", EndpointConfigName="two")
    in_service.wait(EndpointName="quickstart", WaiterConfig={"Delay": 1})
    say("updated to two variants")

    sagemaker.update_endpoint_weights_and_capacities(
        EndpointName="quickstart",
        DesiredWeightsAndCapacities=[
            {"VariantName": "blue", "DesiredWeight": 0.0},
            {"VariantName": "green", "DesiredWeight": 1.0, "DesiredInstanceCount": 2},
        ],
    )
    in_service.wait(EndpointName="quickstart", WaiterConfig={"Delay": 1})
    described = sagemaker.describe_endpoint(EndpointName="quickstart")["ProductionVariants"]
    say({one["VariantName"]: (one["CurrentWeight"], one["CurrentInstanceCount"]) for one in described})
    say(call())

    sagemaker.delete_endpoint(EndpointName="quickstart")
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName="quickstart", WaiterConfig={"Delay": 1})
    for name in ("one", "two"):
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
    for name in ("blue", "green"):
        sagemaker.delete_model(ModelName=name)
    say("deleted")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.stdin.buffer.read())
