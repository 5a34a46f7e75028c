"""Trains a video encoder without labels in a Lightning trainer, and goes on where it was stopped.

    cacl data synth demo/videos --train 16 --test 4
    python examples/lightning_trainer.py demo/videos demo/lightning

The two views of a clip attract each other, and repel those of the other clips in the batch, as in SimCLR (Chen et al.,
2020). Any module that takes clips, float [B, 3, T, H, W], can stand in the place of the encoder.
"""

import argparse
from collections.abc import Iterator

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F

import cacl
from cacl.clips import ClipBatch


class ContrastiveTraining(lightning.LightningModule):
    """An encoder with a head, trained on pairs of views."""

    def __init__(self, videos: str) -> None:
        super().__init__()
        self.videos = videos
        self.encoder = cacl.create_model("r3d10", width=0.25)
        self.head = nn.Linear(self.encoder.num_features, 64)

    def train_dataloader(self) -> Iterator[ClipBatch]:
        """Returns the batches from the next step on, of which each process takes its share.

        Lightning calls this after it has restored a checkpoint, so that `global_step` says exactly which clips come
        next. The state of the loader would not: Lightning fetches a batch ahead of the one that it trains on.
        """
        loader = cacl.ClipLoader(
            self.videos,
            frames=8,
            size=40,
            batch_size=16,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        return loader.steps(self.global_step, self.trainer.max_steps)

    def training_step(self, batch: ClipBatch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        query, key = (F.normalize(self.head(self.encoder(view.float()))) for view in batch.views)
        loss = F.cross_entropy(query @ key.T / 0.1, torch.arange(len(batch), device=query.device))
        self.log("loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns the optimiser, whose state Lightning saves and restores."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main() -> None:
    """Trains, saves a checkpoint every few steps, and prints where they are."""
    parser = argparse.ArgumentParser(description="Trains a video encoder without labels in a Lightning trainer.")
    parser.add_argument("videos", help="a folder of videos, a list, or a prepared set")
    parser.add_argument("run", help="the folder that checkpoints are saved to, and that the training goes on from")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--save-every", type=int, default=20, help="steps from one checkpoint to the next")
    given = parser.parse_args()

    lightning.seed_everything(0)
    checkpoints = ModelCheckpoint(given.run, save_last=True, every_n_train_steps=given.save_every)
    trainer = lightning.Trainer(max_steps=given.steps, default_root_dir=given.run, callbacks=[checkpoints])
    trainer.fit(ContrastiveTraining(given.videos), ckpt_path="last")
    print(f"{trainer.global_step} of {given.steps} steps are done; the checkpoints are in {given.run}")


if __name__ == "__main__":
    main()
