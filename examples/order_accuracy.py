"""Says how well the network of a run tells how far the frames of clips are out of order.

    python examples/order_accuracy.py demo/run --split test

The clips are cut, augmented and put out of order as in training, from another split of the same videos, and the network
judges them as in evaluation: with the statistics of batch norm that training left, and without dropout.
"""

import argparse
import sys
from pathlib import Path

import torch

import cacl
from cacl.checkpoints import checkpoint
from cacl.method.cacl import CACL
from cacl.method.losses import order_classes


def main() -> None:
    """Prints the share of clips whose class is predicted, and that of always naming the most frequent class."""
    parser = argparse.ArgumentParser(description="Says how well a run tells the order of frames.")
    parser.add_argument("run", type=Path, help="the folder of the run")
    parser.add_argument("--split", default="test", help="the videos that the clips are taken of: train, val or test")
    parser.add_argument("--epochs", type=int, default=4, help="how many clips of each video there are")
    given = parser.parse_args()

    saved = checkpoint.load(given.run)
    if saved.config.losses.get("order", 0) == 0:
        sys.exit(f"{given.run}: was trained without the order of frames (losses.order = 0)")
    model = CACL(saved.config)
    model.load_state_dict(saved.model)
    model.eval()
    loader = cacl.ClipLoader.from_config(saved.config, split=given.split, views=1)
    predicted, classes = [], []
    with torch.no_grad():
        for batch in (batch for epoch in range(given.epochs) for batch in loader.epoch(epoch)):
            predicted.append(model.query(batch.query.float(), batch.order)["order"]["cnn"].argmax(1))
            classes.append(order_classes(batch.order))
    truth = torch.cat(classes)
    right = (torch.cat(predicted) == truth).float().mean().item()
    frequent = (truth.bincount().max() / len(truth)).item()
    print(f"order accuracy {right:.3f} of {len(truth)} clips; the most frequent class has {frequent:.3f}")


if __name__ == "__main__":
    main()
