#!/usr/bin/env bash
# What people type with the AWS command line, version 1: deploy, call, update, list, delete.
# bash aws_cli.sh PYTHON FIRST_ARTIFACT SECOND_ARTIFACT
set -euo pipefail
python="$1" first="$2" second="$3"
aws() { "$python" -m awscli --output text "$@"; }
role="arn:aws:iam::123456789012:role/any"

for name in first second; do
  aws sagemaker create-model --model-name "cli-$name" --execution-role-arn "$role" \
    --primary-container "Image=any,ModelDataUrl=${!name}" --tags Key=made-by,Value=cli >/dev/null
  aws sagemaker create-endpoint-config --endpoint-config-name "cli-$name" --production-variants \
    "VariantName=v,ModelName=cli-$name,InitialInstanceCount=1,InstanceType=ml.m5.large" >/dev/null
done
aws sagemaker create-endpoint --endpoint-name cli --endpoint-config-name cli-first
aws sagemaker wait endpoint-in-service --endpoint-name cli
aws sagemaker-runtime invoke-endpoint --endpoint-name cli --content-type text/csv --accept text/csv \
  --body fileb://row.csv answer.csv
cat answer.csv

aws sagemaker update-endpoint --endpoint-name cli --endpoint-config-name cli-second >/dev/null
aws sagemaker wait endpoint-in-service --endpoint-name cli
aws sagemaker update-endpoint-weights-and-capacities --endpoint-name cli \
  --desired-weights-and-capacities VariantName=v,DesiredWeight=0.5,DesiredInstanceCount=2 >/dev/null
aws sagemaker wait endpoint-in-service --endpoint-name cli
aws sagemaker describe-endpoint --endpoint-name cli \
  --query 'ProductionVariants[0].[CurrentWeight,CurrentInstanceCount]'
aws sagemaker-runtime invoke-endpoint --endpoint-name cli --content-type text/csv --accept text/csv \
  --body fileb://row.csv answer.csv >/dev/null
cat answer.csv
aws sagemaker list-models --name-contains cli --sort-by Name --sort-order Ascending --max-items 1 \
  --query 'Models[].ModelName' | head -1
arn="$(aws sagemaker describe-model --model-name cli-first --query ModelArn)"
aws sagemaker list-tags --resource-arn "$arn" --query 'Tags[].[Key,Value]'

aws sagemaker delete-endpoint --endpoint-name cli
aws sagemaker wait endpoint-deleted --endpoint-name cli
for name in first second; do
  aws sagemaker delete-endpoint-config --endpoint-config-name "cli-$name"
  aws sagemaker delete-model --model-name "cli-$name"
done
aws sagemaker describe-endpoint --endpoint-name cli 2>&1 || echo "exit status $?"
