#!/usr/bin/env bash
# Trains the networks of the package again, from nothing: some seven hours on two cores.
#
#     bash benchmarks/pretrain.sh DATA_DIR    # of tensorflow-datasets, with cifar10
#
# Broken off and started again, it continues. -m benchmarks.ship puts them into the
# package. They are not the same bit for bit: the first ones were trained by earlier
# versions, on a machine of other cores.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
data_dir=${1:?DATA_DIR}

train() { # MODEL FOLDER FLAG...
  "$python" training/train.py --model="$1" --model_dir="runs/$2" --dataset=cifar10 \
    --data_dir="$data_dir" --precision=mixed_bfloat16 --evaluation_epochs=1000 "${@:3}"
}

train resnet20 resnet20-alone --epochs=80
train resnet14 resnet14-cifar10 --epochs=100 --teacher=runs/resnet20-alone
train resnet20 resnet20-cifar10 --epochs=60 --seed=1 --teacher=runs/resnet14-cifar10 \
  --weights=runs/resnet20-alone/model.keras
train resnet8 resnet8-alone --epochs=80
train resnet8 resnet8-cifar10 --epochs=50 --seed=1 --teacher=runs/resnet20-alone \
  --weights=runs/resnet8-alone/model.keras --learning_rate=0.05

"$python" training/qat.py --model_dir=runs/resnet20-cifar10 --epochs=2
for model in resnet8 resnet14 resnet20; do
  "$python" edge/export.py --model_dir="runs/$model-cifar10" --report_examples=5000
done
