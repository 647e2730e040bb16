"""What code written for the SageMaker Python SDK, version 2, does: run by the interpreter of ``sagemaker-v2``.

``python sdk_v2.py SUM_ARTIFACT TWICE_ARTIFACT PREFIX``: two archives and a prefix in S3. Prints what it was answered as
JSON. Nothing here knows of another server than AWS: it is found by the environment.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from sagemaker import Session
from sagemaker.deserializers import JSONDeserializer
from sagemaker.model import Model, ModelPackage
from sagemaker.multidatamodel import MultiDataModel
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer

ROLE = "arn:aws:iam::123456789012:role/any"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/any:1"
ROW = [1.0] * 30


def model(name: str, data: str, session: Session) -> Model:
    """A model whose endpoint answers with a predictor."""
    return Model(
        image_uri=IMAGE, model_data=data, role=ROLE, name=name, predictor_cls=Predictor, sagemaker_session=session
    )


def in_service(session: Session, name: str) -> None:
    """Waits as ``deploy(wait=True)`` does, but for its pauses of 30 seconds."""
    session.wait_for_endpoint(name, poll=1)


def codecs() -> dict[str, Any]:
    """CSV in, JSON out."""
    return {"serializer": CSVSerializer(), "deserializer": JSONDeserializer(accept="application/json")}


def single(session: Session, first: str, second: str) -> dict[str, Any]:
    """Deploy, predict, update to another model, scale, delete."""
    told: dict[str, Any] = {}
    usual = {"initial_instance_count": 1, "instance_type": "ml.m5.large", "endpoint_name": "sdk", "wait": False}
    predictor = model("sdk-first", first, session).deploy(**usual, **codecs())
    in_service(session, "sdk")
    told["predicted"] = predictor.predict(ROW)
    model("sdk-second", second, session).create(instance_type="ml.m5.large")
    changed = {"model_name": "sdk-second", "initial_instance_count": 2, "instance_type": "ml.m5.large"}
    predictor.update_endpoint(**changed, wait=False)
    in_service(session, "sdk")
    told["updated"] = predictor.predict(ROW)
    described = session.sagemaker_client.describe_endpoint(EndpointName="sdk")
    told["instances"] = described["ProductionVariants"][0]["CurrentInstanceCount"]
    again = Predictor("sdk", sagemaker_session=session, **codecs())
    told["found again"] = again.predict(ROW)
    try:
        model("sdk-third", first, session).deploy(**usual)
    except session.sagemaker_client.exceptions.ClientError as error:
        told["name taken"] = error.response["Error"]["Message"].partition(' "')[0]
    predictor.delete_model()
    predictor.delete_endpoint(delete_endpoint_config=True)
    return told


def many(session: Session, prefix: str) -> dict[str, Any]:
    """A multi-model endpoint."""
    family = MultiDataModel(
        name="sdk-many", model_data_prefix=prefix, image_uri=IMAGE, role=ROLE, sagemaker_session=session
    )
    family.deploy(1, "ml.m5.large", endpoint_name="sdk-many", wait=False)
    in_service(session, "sdk-many")
    predictor = Predictor("sdk-many", sagemaker_session=session, **codecs())
    told = {"targets": [predictor.predict(ROW, target_model=name) for name in ("sum.tar.gz", "twice.tar.gz")]}
    predictor.delete_model()
    predictor.delete_endpoint()
    return told


def registered(session: Session, data: str) -> dict[str, Any]:
    """A version in a group of the registry; deploying it by its ARN approves it, as this SDK has it."""
    client = session.sagemaker_client
    client.create_model_package_group(ModelPackageGroupName="sdk-group")
    version = model("sdk-registered", data, session).register(
        content_types=["text/csv"],
        response_types=["application/json"],
        inference_instances=["ml.m5.large"],
        transform_instances=["ml.m5.large"],
        model_package_group_name="sdk-group",
        approval_status="PendingManualApproval",
    )
    arn, usual = version.model_package_arn, {"initial_instance_count": 1, "instance_type": "ml.m5.large"}

    def approval() -> str:
        return str(client.describe_model_package(ModelPackageName=arn)["ModelApprovalStatus"])

    told: dict[str, Any] = {"registered": approval()}
    package = ModelPackage(ROLE, model_package_arn=arn, sagemaker_session=session, predictor_cls=Predictor)
    predictor = package.deploy(**usual, endpoint_name="sdk-approved", wait=False, **codecs())
    in_service(session, "sdk-approved")
    told |= {"deployed": approval(), "from the registry": predictor.predict(ROW)}
    predictor.delete_model()
    predictor.delete_endpoint()
    client.delete_model_package(ModelPackageName=arn)
    client.delete_model_package_group(ModelPackageGroupName="sdk-group")
    return told


def left(session: Session) -> dict[str, int]:
    """How many things are still there."""
    client = session.sagemaker_client
    return {
        "Endpoints": len(client.list_endpoints()["Endpoints"]),
        "EndpointConfigs": len(client.list_endpoint_configs()["EndpointConfigs"]),
        "Models": len(client.list_models()["Models"]),
    }


def main() -> None:
    """Everything, in order."""
    first, second, prefix = sys.argv[1:]
    session = Session(default_bucket="models")
    told = single(session, first, second) | many(session, prefix) | registered(session, first)
    print()  # the SDK draws its progress on a line without end
    print(json.dumps(told | {"left": left(session)}))


if __name__ == "__main__":
    main()
