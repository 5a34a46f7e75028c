"""Trains a classifier of videos in a loop of plain torch, and goes on where it was stopped.

    cacl data synth demo/videos --train 16 --test 4
    python examples/plain_torch.py demo/videos demo/plain.pt --labels appearance

Any module that takes clips, float [B, 3, T, H, W], can stand in the place of the model.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import cacl


def main() -> None:
    """Trains, saves a checkpoint after every epoch, and prints the share of test clips that are told rightly."""
    parser = argparse.ArgumentParser(description="Trains a classifier of videos in a loop of plain torch.")
    parser.add_argument("videos", help="a folder of videos, a list, or a prepared set")
    parser.add_argument("checkpoint", type=Path, help="where the training is saved, and goes on from")
    parser.add_argument("--labels", default="label", help="`label`, or another column of the lists")
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()

    torch.manual_seed(0)
    clips = {"frames": 8, "stride": 2, "size": 40, "batch_size": 16, "views": 1, "labels": given.labels}
    loader = cacl.ClipLoader(given.videos, **clips)
    encoder = cacl.create_model("r3d10", width=0.25)
    model = nn.Sequential(encoder, nn.Linear(encoder.num_features, len(loader.classes)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stateful = {"model": model, "optimizer": optimizer, "loader": loader}
    if given.checkpoint.exists():
        for name, state in torch.load(given.checkpoint, weights_only=True).items():
            stateful[name].load_state_dict(state)

    for epoch in range(loader.epochs_done, given.epochs):
        losses: list[torch.Tensor] = []
        for batch in loader.epoch(epoch):
            assert batch.labels is not None  # The loader was asked for labels.
            loss = nn.functional.cross_entropy(model(batch.views[0].float()), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        print(f"epoch {epoch}: loss {torch.stack(losses).mean().item():.3f}")
        torch.save({name: part.state_dict() for name, part in stateful.items()}, given.checkpoint)

    model.eval()
    test = cacl.ClipLoader(given.videos, **clips, split="test")
    with torch.no_grad():
        right = [model(batch.views[0].float()).argmax(1) == batch.labels for batch in test.evaluation(4)]
    print(f"{torch.cat(right).float().mean().item():.0%} of the test clips are told rightly")


if __name__ == "__main__":
    main()
