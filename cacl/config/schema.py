"""The keys of a configuration: one frozen dataclass per section, with the meaning of every key beside it.

The sections about clips and their loading are in `data_schema`.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from cacl.config.bounds import AboveZero, Count, NonNegative, Positive, Share
from cacl.config.data_schema import AugmentConfig, ClipConfig, DataConfig, LoaderConfig
from cacl.config.names import NameOf
from cacl.config.section import section
from cacl.registry import ENCODERS, LOGGERS, LOSSES, PAIRS

Init = Literal["normal", "torch"]

DEFAULT_LOSSES = {"contrast": 1.0, "order": 1.0}
"""The losses of the method, with the weights that the paper gives them."""


def _with_default_losses(value: object) -> object:
    return DEFAULT_LOSSES | value if isinstance(value, dict) else value


Losses = Annotated[dict[Annotated[str, NameOf(LOSSES)], NonNegative], BeforeValidator(_with_default_losses)]


@section
class TransformerConfig:
    """The video transformer, which reads a token for each frame, or for every two."""

    embedder: str = "resnet50"
    """The network that makes the tokens. Any timm model by name, and `light`, a small convolutional stem, make one of
    each frame. `tubelet`, a convolution with batch norm, makes one of each two neighbouring frames (Arnab et al.,
    ViViT, ICCV 2021), and so sees what moves; `clip.frames` has to be even."""
    weights: str = ""
    """The file of the embedder's weights (.safetensors or .pth). Without one they are random."""
    frozen: bool = True
    """Whether the embedder stays fixed, in evaluation mode. The published recipe does so, with pre-trained weights."""
    width: Positive = 768
    """The length of a token."""
    depth: Positive = 6
    """The number of blocks."""
    heads: Positive = 6
    """The number of attention heads in a block. They divide the width."""
    normalize: bool = True
    """Whether frames are brought to the mean and the deviation that the timm model states. The published recipe does
    not do so, and `light` and `tubelet` never do."""


@section
class ModelConfig:
    """The two encoders and their heads."""

    cnn: Annotated[str, NameOf(ENCODERS)] = "r3d18"
    """The encoder that sees a clip and its shuffled copy one after the other: a 3D CNN, or any encoder that is
    registered. R(2+1)D is that of Tran et al., or with `_official` that of the release of the method."""
    width: AboveZero = 1.0
    """The multiplier of every channel count of the CNN. At 1 the average pool has 512 dimensions."""
    embedding_dim: Positive = 128
    """D, the length of the embeddings that are contrasted."""
    order_head: Literal["concatenation", "difference"] = "concatenation"
    """What the order head sees of the CNN: the features of the clip and of its shuffled copy, concatenated, as
    published, or how much the feature maps of the two differ, in each stage, channel and frame."""
    dropout: Share = 0.5
    """The dropout probability in the order head."""
    init: Init = "normal"
    """What the convolutions of the CNN and the linear layers of the transformer start from. `normal` follows He et al.
    (2015) and Dosovitskiy et al. (2021). `torch` is what torch draws by default, which is published. Under batch norm
    the larger weights of `normal` learn more slowly at the same learning rate."""
    transformer: TransformerConfig = TransformerConfig()


@section
class ContrastConfig:
    """The contrastive loss."""

    pairs: Annotated[str, NameOf(PAIRS)] = "cross"
    """Which pairs of embeddings are positives; `cacl.method.pairs` has those of this package."""
    cross_weight: AboveZero = 1.0
    """The weight of each pair across the two architectures, where one within an architecture has 1. As in SLIP (Mu et
    al., ECCV 2022), the sum of two contrasts needs a balance. 1 is published."""
    negatives: Literal["queue", "batch", "both"] = "queue"
    """What the positives are compared with: `queue` takes the keys of earlier videos, as published; `batch` takes the
    other videos of the batch, of all processes, where both sides of a pair learn; `both` takes the mean of both
    losses."""
    reversed_weight: NonNegative = 0.0
    """The weight of a second contrast, which holds each pair against the clip played backwards: a negative of the same
    video, an intra-negative as Tao et al. have (IIC, ACM MM 2020). What stands still does not tell the two apart, so
    motion is learnt early. With 0, which is published, backward clips are not encoded."""
    temperature: AboveZero = 0.07
    """The temperature, by which similarities are divided."""
    queue_size: Positive = 6400
    """K, the number of keys of earlier videos that are kept as negatives."""
    momentum: Share = 0.999
    """The share m of the key encoders' weights that stays at each step."""
    shuffle_bn_groups: Positive = 1
    """The number of groups per process in which the permuted key batches are normalised; with
    `train.gradient_accumulation` it is the number per part. This is shuffled batch norm, which keeps batch statistics
    from giving a pair away."""
    key_first_input: Literal["clip", "shuffled"] = "clip"
    """What the key encoders take first: the clip, or its shuffled copy, as published. The query encoders always take
    the clip first."""


@section
class OptimConfig:
    """The optimiser and its learning rate."""

    name: str = "sgd"
    """Any optimiser of timm's factory, such as sgd (which is Nesterov's), momentum (without Nesterov), adamw, lars or
    lamb. Those of NVIDIA Apex, such as fusedlamb, need it and a GPU."""
    lr: AboveZero = 0.01
    """The peak learning rate for the whole batch. It is not scaled by the batch size."""
    momentum: Share = 0.9
    """The momentum of the gradients, for optimisers that have one."""
    weight_decay: NonNegative = 1e-4
    """The weight decay of all trained parameters."""
    warmup_epochs: NonNegative = 0.0
    """The number of epochs in which the rate rises linearly from 0 to `lr`. It falls to 0 along a cosine afterwards."""
    schedule_per: Literal["step", "epoch"] = "step"
    """How often the cosine goes down. `epoch` is published: epochs count from 1, and the rate of the last one is 0."""
    max_grad_norm: NonNegative = 0.0
    """The largest norm that the whole gradient may have. 0 sets no limit."""


@section
class TrainConfig:
    """The length of a training, and how it is computed."""

    epochs: AboveZero = 300.0
    """The number of passes over the training videos."""
    batch_size: Annotated[int, Field(ge=2, strict=True)] = 64
    """The number of videos per step, over all processes together."""
    device: str = "auto"
    """The device of torch, such as cpu or cuda. `auto` takes CUDA where there is a device, and the CPU elsewhere."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """The arithmetic of the encoders. `bf16` runs them under autocast, while losses and weights stay fp32. `auto` takes
    bf16 on CUDA and fp32 elsewhere."""
    gradient_accumulation: Positive = 1
    """The number of parts of its clips that a process embeds one after the other, with activations of one of them at a
    time. The losses see all clips of the batch. Each part has batch statistics of its own, as in a process of its own,
    and is divided into `contrast.shuffle_bn_groups`."""
    compile: bool = False
    """Whether the encoders are compiled with torch.compile."""
    activation_checkpointing: bool = False
    """Whether the backward pass computes the activations within the stages of the CNN and the blocks of the transformer
    again, instead of keeping them. It takes less memory and more time, and gives the same bits."""
    log_every: Positive = 20
    """The number of steps from one log line to the next. Only these steps wait for the device."""
    loggers: tuple[Annotated[str, NameOf(LOGGERS)], ...] = ()
    """Where scalars are written beside `metrics.jsonl` and TensorBoard: `wandb` is Weights & Biases. Each needs the
    package of its name, which is not installed with this one."""
    checkpoint_every: Positive = 500
    """The number of steps from one checkpoint to the next. One is written at the end in any case."""


@section
class KnnConfig:
    """A score by nearest neighbours during a training without labels."""

    every: Count = 0
    """The number of steps from one score to the next. 0 makes none. It changes nothing of what is trained. The data set
    needs labelled videos of the splits `train` and `val`."""
    labels: tuple[str, ...] = ("label",)
    """The labels that videos are classified by: `label`, or other columns of the lists of the data set."""


@section
class FinetuneConfig:
    """Training with labels, by `cacl finetune`, which alone takes these keys."""

    weights: str = ""
    """The run folder, checkpoint or encoders.safetensors whose weights the encoder begins with. With an empty string
    they are random."""
    encoder: Literal["cnn", "transformer"] = "cnn"
    """Which of the two encoders it is."""
    label: str = "label"
    """What is learnt: `label`, the class of a video, or another column of the lists of the data set."""
    trained: Literal["all", "last", "classifier"] = "all"
    """What is trained beside the classifier: `all` layers of the encoder, the `last` ones, or none. The others stay as
    they are, their batch statistics included."""
    last_layers: Positive = 2
    """How many groups of layers the `last` ones are. The groups of a 3D CNN are conv1 to conv5, and those of the
    transformer its embedder and each of its blocks."""
    last_lr: NonNegative = 0.0
    """The constant learning rate of the classifier and the last groups of layers, while `optim` has the rate of the
    others. 0 gives them the rate of `optim`, too. The published value is 1e-3."""
    layer_decay: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """The factor by which the learning rate falls from each group of layers to the one before it, beginning with the
    classifier, which has the rate of `optim`."""
    dropout: Share = 0.0
    """The dropout probability before the classifier."""
    label_smoothing: Share = 0.0
    """The share of a label that is spread evenly over all classes (Szegedy et al., CVPR 2016)."""
    mixup: NonNegative = 0.0
    """The parameter of the beta distribution that draws the ratio in which two clips and their labels are mixed (Zhang
    et al., ICLR 2018). 0 mixes none."""
    val_share: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.1
    """The share of each class of the training videos that is held out for validation where the data set has no
    validation videos. It is drawn from the names of the videos, so that it stays the same."""
    val_epochs: Positive = 1
    """The number of epochs from one validation to the next. There is one at the end in any case."""
    val_clips: Positive = 1
    """The number of evenly spaced clips of a validation video whose logits are averaged."""


@section
class RetrievalConfig:
    """How features are made for an evaluation."""

    clips_per_video: Positive = 10
    """The number of evenly spaced clips of a video whose features are averaged."""
    clip_starts: Literal["span", "official"] = "span"
    """Where these clips start. `span` spreads them from the first frame to the last and rounds. With `official` the
    last clip starts T x stride frames before the end and starts are rounded down; videos that are too short for the
    stride are seen at stride 1, from their first frame."""
    batch_size: Positive = 16
    """The number of clips per forward pass."""


@section
class RecognitionConfig:
    """How classifiers on frozen features are judged."""

    val_share: Annotated[float, Field(gt=0, lt=1, strict=True)] = 0.2
    """The share of each class of the training videos that settings of classifiers are chosen on, where the data set has
    no validation videos. It is drawn from the names of the videos, so that it stays the same."""


@section
class ProfileConfig:
    """What `cacl profile` records, which alone takes these keys."""

    steps: tuple[Count, Count] = (10, 15)
    """How many steps are taken before the first one that is recorded, and how many up to the last one, which ends the
    training. The first steps of a run are slower than the others."""
    ranks: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    """The processes that are recorded, by their numbers, where there are several."""


@section
class Config:
    """The configuration of a run."""

    name: str = "cacl"
    """A name of the run for people, which `train.loggers` show. It changes nothing else."""
    run: str = "runs/cacl"
    """The folder of this run, for its resolved configuration, logs, checkpoints and features."""
    seed: Count = 0
    """The seed of everything random: weights, clips, augmentation and dropout."""
    data: DataConfig = DataConfig()
    clip: ClipConfig = ClipConfig()
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    model: ModelConfig = ModelConfig()
    losses: Losses = dataclasses.field(default_factory=DEFAULT_LOSSES.copy, hash=False)  # a table has no hash
    """The weight of each loss by name. `contrast` and `order`, the classification of how far the frames were shuffled,
    have a weight of 1 where none is given. A weight of 0 leaves a loss out, and what only it needs is not built."""
    contrast: ContrastConfig = ContrastConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    knn: KnnConfig = KnnConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
    recognition: RecognitionConfig = RecognitionConfig()
    profile: ProfileConfig = ProfileConfig()
