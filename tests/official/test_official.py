"""cacl/recipes/official.toml against a second implementation of what the release computes (release.py), with the same
weights, clips and draws: networks, loss, whole steps of SGD with momentum copies and queue, views, starts, rates.
"""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import torchvision
from av.video.stream import VideoStream
from PIL import Image
from torch import Tensor, nn

from cacl.benchmarks.loader.command import bench_loader
from cacl.checkpoints.encoders import EncoderWeights
from cacl.clips import ClipBatch, ClipPlan, VideoRecord, ViewPlan
from cacl.config import Config, differences, load, to_dict
from cacl.errors import ConfigError, UsageError
from cacl.evaluation.features import cache_key
from cacl.evaluation.retrieval import describe_protocol
from cacl.loaders.backends import cpu, reference
from cacl.loaders.backends.dali import DaliBackend
from cacl.loaders.backends.pillow_ops import apply_color_steps
from cacl.loaders.backends.thread_pool import LoadClip
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.probe import probe
from cacl.loaders.sampling.augmentation import IDENTITY_COLOR
from cacl.loaders.sampling.sampler import ClipSampler, evaluation_plans
from cacl.method.cacl import CACL
from cacl.method.dual_encoder import DualEncoder
from cacl.method.losses import contrast_loss
from cacl.models.cnn3d import C3D
from cacl.models.registry import create_model
from cacl.models.video_transformer import VideoTransformer
from cacl.reporting.console import Console
from cacl.training.optim import cosine_by_epoch
from cacl.training.train_state import TrainState
from cacl.training.training_videos import find_training_videos
from tests.launch import ROOT
from tests.official import release

RECIPE = ROOT / "cacl/recipes/official.toml"

CLIP, FRAMES, SIZE = 4, 8, 32  # clips in a batch, frames in a clip, pixels
SMALL = (
    *(
        f"clip.frames={FRAMES}",
        "clip.min_remaining_frames=22",
        f"clip.size={SIZE}",
        "augment.resize=[40, 54]",
        "augment.crop=[0.8, 0.8]",
    ),
    *(
        "model.width=0.125",
        "model.embedding_dim=16",
        "contrast.queue_size=16",
        f"train.batch_size={CLIP}",
        "train.epochs=2",
    ),
    *(f"model.transformer.{key}" for key in ("embedder=test_resnet", "width=24", "depth=2", "heads=3")),
    "train.device=cpu",
)
"""What makes the recipe small, and leaves what it computes as it is."""
CNNS = ("c3d", "r3d10", "r2plus1d10_official")


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def recipe(*overrides: str) -> Config:
    return load(RECIPE, overrides)


def small(*overrides: str) -> Config:
    return recipe(*SMALL, *overrides)


def give(source: nn.Module, target: nn.Module) -> None:
    """The trained weights of one to the other, one after the other: names differ, order and shapes do not."""
    theirs = [p for p in source.parameters() if p.requires_grad]
    mine = list(target.parameters())
    assert [p.shape for p in theirs] == [p.shape for p in mine]
    with torch.no_grad():
        for p, q in zip(mine, theirs, strict=True):
            p.copy_(q)


def second(query: DualEncoder, config: Config) -> release.Encoders:
    """The second implementation of these encoders, with their weights."""
    assert query.cnn
    assert query.transformer
    model = config.model
    backbone: Any = copy.deepcopy(query.transformer.embedder.backbone)
    own = release.Encoders(
        release.cnn(model.cnn, round(64 * model.width)),
        round(512 * model.width),
        release.Transformer(
            backbone,
            backbone.head_hidden_size,
            config.clip.frames,
            model.transformer.width,
            model.transformer.depth,
            model.transformer.heads,
        ),
        model.transformer.width,
        model.embedding_dim,
    )
    give(query, own)
    return own


def a_batch(number: int = 0) -> ClipBatch:
    generator = torch.Generator().manual_seed(number)
    shape = (2, CLIP, 3, FRAMES, SIZE, SIZE)
    views = torch.randint(0, 256, shape, generator=generator) / 255
    order = torch.stack([torch.randperm(FRAMES, generator=generator) for _ in range(CLIP)])
    index = torch.arange(CLIP)
    return ClipBatch(views=tuple(views), order=order.byte(), video=index, index=index)


def running(module: nn.Module) -> list[Tensor]:
    """Statistics of the batch norms that are trained."""
    return [x for name, x in module.named_buffers() if "backbone" not in name and "running" in name]


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    found = [p.grad for p in parameters]
    assert all(gradient is not None for gradient in found)
    return found  # type: ignore[return-value]  # none is None


def assert_same(ours: Iterable[Tensor], theirs: Iterable[Tensor], what: str) -> None:
    """Of all values together: a bias before a batch norm has a gradient of rounding errors."""
    mine, other = (torch.cat([x.detach().flatten() for x in tensors]) for tensors in (ours, theirs))
    assert mine.dtype == other.dtype == torch.float64
    assert (mine - other).norm() <= 1e-9 * other.norm(), what


# --- Networks, in float64


@pytest.mark.parametrize("name", [*CNNS, "r3d34"])
def test_cnns_have_its_features_gradients_and_statistics(name: str) -> None:
    ours, theirs = create_model(name, width=0.125).double(), release.cnn(name, 8).double()
    give(ours, theirs)
    clips, weights = torch.rand(3, 3, 8, 32, 32).double(), torch.randn(3, 64).double()
    mine, other = ours(clips), theirs(clips)
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-12)
    (mine * weights).sum().backward()
    (other * weights).sum().backward()
    assert_same(gradients(ours.parameters()), gradients(theirs.parameters()), "gradients")
    assert_same(running(ours), running(theirs), "statistics")


@pytest.mark.parametrize("reverse", [False, True])
def test_the_transformer_reads_both_clips_behind_cls_with_a_position_each(reverse: bool) -> None:
    config = small()
    query = DualEncoder(config).double()
    theirs = second(query, config).double()
    clips, order = torch.rand(CLIP, 3, FRAMES, SIZE, SIZE).double(), a_batch().order
    copies = torch.stack([release.shuffled(clip, o) for clip, o in zip(clips, order.tolist(), strict=True)])
    assert query.transformer
    if reverse:
        ours = query.transformer(copies, order.argsort(1))
        other = theirs.transformer(copies, clips)
    else:
        ours, other = query.transformer(clips, order), theirs.transformer(clips, copies)
    torch.testing.assert_close(ours, other, rtol=0, atol=1e-11)
    weights = torch.randn(CLIP, 24).double()
    (ours * weights).sum().backward()
    (other * weights).sum().backward()
    trained = [p for p in query.transformer.parameters() if p.requires_grad]
    assert_same(gradients(trained), gradients(theirs.transformer.parameters()), "gradients")


def test_the_recipe_draws_weights_as_torch_does() -> None:
    """All within 1 / sqrt(fan in): a normal distribution of the same deviation would leave it. So do the untrained
    encoders that an evaluation shows beside the trained ones."""
    train_state = TrainState(small(), 6, torch.device("cpu"))
    weights = EncoderWeights.of_checkpoint(train_state.make_checkpoint(""), "here")
    query = train_state.model.query
    for cnn, transformer in (
        (query.cnn, query.transformer),
        (weights.build_untrained("cnn"), weights.build_untrained("transformer")),
    ):
        assert isinstance(cnn, C3D)
        assert isinstance(transformer, VideoTransformer)
        modules = (*cnn.modules(), *transformer.blocks.modules(), transformer.embedder.project)
        layers = [m for m in modules if isinstance(m, nn.Conv3d | nn.Linear)]
        assert len(layers) == 8 + 2 * 4 + 1
        for layer in layers:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * bound < layer.weight.abs().max() <= bound * (1 + 1e-6)


def test_the_embedder_is_torchvisions_resnet50_with_the_weights_of_a_moco(tmp_path: Path) -> None:
    """Bit for bit, on frames as they are, from a file as MoCo's training writes it."""
    resnet = torchvision.models.resnet50(weights=None)
    for name, values in resnet.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    weights = {f"module.encoder_q.{name}": x for name, x in resnet.state_dict().items()}
    torch.save({"epoch": 200, "state_dict": weights | {"module.queue": torch.zeros(128, 4)}}, tmp_path / "moco.pth")
    config = recipe(f"model.transformer.weights={tmp_path / 'moco.pth'}", "model.transformer.depth=1").model.transformer
    embedder = VideoTransformer(config, 16).train().embedder
    resnet.fc = nn.Identity()  # type: ignore[assignment]
    frames = torch.rand(2, 3, 48, 48)
    with torch.no_grad():
        assert torch.equal(embedder(frames), embedder.project(resnet.eval()(frames)))


# --- Loss


def test_the_loss_is_that_of_four_pairs_with_one_anchors_negatives() -> None:
    config = recipe()
    queue = nn.functional.normalize(torch.randn(50, 16), dim=1)
    ours = {
        n: nn.functional.normalize(torch.randn(5, 16), dim=1).requires_grad_(n[2] == "q")
        for n in ("f_q", "t_q", "f_k", "t_k")
    }
    theirs = {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in ours.items()}
    value, _ = contrast_loss(ours, queue, config.contrast.temperature, config.contrast.pairs, config.contrast.negatives)
    f_q, t_q, f_k, t_k = (theirs[name] for name in ("f_q", "t_q", "f_k", "t_k"))
    expected = release.contrast(f_q, t_q, f_k, t_k, queue.double())
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    value.backward()
    expected.backward()
    for name in ("f_q", "t_q"):
        mine, other = ours[name].grad, theirs[name].grad
        assert mine is not None
        assert other is not None
        torch.testing.assert_close(mine.double(), other, rtol=1e-5, atol=1e-6)


# --- Whole steps


@pytest.mark.parametrize("name", CNNS)
def test_steps_are_those_of_the_release(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs of six videos in three steps, the last of which has the rate 0 of the last epoch. Keys go around the
    queue of 16 once and a half.

    In float64, in which the step otherwise never runs: in float32 activations next to the kink of a ReLU fall on either
    side, and after a few steps two runs have little in common.
    """
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    config = small(f"model.cnn={name}")
    train_state = TrainState(config, 6, torch.device("cpu"))
    model = train_state.model.double()
    query, key = model.query, model.key
    theirs = release.Training(second(query, config).double(), model.queue.keys)
    assert train_state.num_steps == 3
    for step, epoch in enumerate((1, 1, 2)):
        batch = a_batch(step)
        before = [p.clone() for p in query.parameters()]
        metrics = train_state.train_step(batch, sync=True)
        rate = release.learning_rate(epoch, epochs=2)
        loss = theirs.loss(batch.query.double(), batch.key.double(), batch.order.tolist())
        theirs.step(loss, rate)

        assert metrics["learning_rate"].item() == pytest.approx(rate)
        assert metrics["loss"].item() == pytest.approx(loss.item(), rel=1e-9)
        trained = [p for p in query.parameters() if p.requires_grad]
        assert_same(gradients(trained), gradients(theirs.query.parameters()), "gradients")
        assert_same(trained, theirs.query.parameters(), "weights")
        assert_same(running(query), running(theirs.query), "statistics of queries")
        assert_same(running(key), running(theirs.key), "statistics of keys")
        assert_same([model.queue.keys], [theirs.queue], "queue")
        assert model.queue.pointer.item() == theirs.pointer == (step + 1) * 2 * CLIP % 16
        still = all(torch.equal(*pair) for pair in zip(before, query.parameters(), strict=True))
        assert still == (epoch == 2)
    theirs.follow()  # at the beginning of the next step, where we do it at the end of this one
    followed = [p for name, p in key.named_parameters() if ".backbone." not in name]
    assert_same(followed, theirs.key.parameters(), "momentum copies")


def test_the_order_of_keys_in_the_queue() -> None:
    """All of the CNN, then all of the transformer, each in the order of the clips."""
    model = CACL(small())
    batch = a_batch()
    _, keys = model(batch, step=0)
    theirs = release.Training(second(model.query, model.config), model.queue.keys)
    copies = torch.stack([release.shuffled(c, o) for c, o in zip(batch.key, batch.order.tolist(), strict=True)])
    f, t = theirs.key(copies, batch.key)
    torch.testing.assert_close(keys, torch.cat([f, t]), rtol=0, atol=1e-5)


def test_batch_norm_is_shuffled_in_groups() -> None:
    """Keys of a batch that was permuted and normalised in two parts, back in their places."""
    model = CACL(small("contrast.shuffle_bn_groups=2"))
    batch, step = a_batch(), 5
    _, keys = model(batch, step=step)
    theirs = release.Training(second(model.query, model.config), model.queue.keys)
    copies = torch.stack([release.shuffled(c, o) for c, o in zip(batch.key, batch.order.tolist(), strict=True)])
    drawn = torch.randperm(CLIP, generator=torch.Generator().manual_seed(step)).tolist()
    assert drawn != sorted(drawn)
    f, t = torch.empty(CLIP, 16), torch.empty(CLIP, 16)
    for group in (drawn[:2], drawn[2:]):
        f[group], t[group] = theirs.key(copies[group], batch.key[group])
    torch.testing.assert_close(keys, torch.cat([f, t]), rtol=0, atol=1e-5)
    assert (theirs.key(copies, batch.key)[0] - f).abs().max() > 1e-3, "in one part it is another key"


def test_rates_of_all_epochs() -> None:
    config = recipe()
    rates = [cosine_by_epoch(e, config.train.epochs, config.optim.lr) for e in range(1, 301)]
    assert rates == pytest.approx([release.learning_rate(e) for e in range(1, 301)], abs=1e-15)
    assert rates[0] < 0.01
    assert abs(rates[-1]) < 1e-15


# --- Clips


def record(frames: int, width: int = 320, height: int = 240) -> VideoRecord:
    return VideoRecord(
        path="v", frames=frames, declared_frames=frames, rate=25, width=width, height=height, codec="h264"
    )


def chi_square(seen: Counter[Any], values: Sequence[Any]) -> float:
    """Standard deviations above its mean, of the statistic for equal probabilities."""
    assert seen.keys() <= set(values)
    expected = sum(seen.values()) / len(values)
    statistic = sum((seen[value] - expected) ** 2 / expected for value in values)
    return (statistic - (len(values) - 1)) / math.sqrt(2 * (len(values) - 1))


def test_draws_have_the_distributions_of_the_release() -> None:
    config, samples = recipe(), 3000
    sampler = ClipSampler([record(50)], config.clip, config.augment, seed=3)
    plans = [sampler.plan(index) for index in range(samples)]
    views = [view for plan in plans for view in plan.views]
    assert all(plan.frame_numbers == range(plan.start, plan.start + 31, 2)[:16] for plan in plans)
    assert chi_square(Counter(plan.start for plan in plans), release.starts(50)) < 4
    assert chi_square(Counter(view.top for view in views), range(128 - 112 + 1)) < 4
    assert chi_square(Counter(view.left for view in views), range(171 - 112 + 1)) < 4
    assert {view.side for view in views} == {112}
    assert {plan.resize for plan in plans} == {(128, 171)}

    jitters = [jitter_of(view.pillow_steps) for view in views]
    orders = Counter(tuple(name for name, _ in jitter) for jitter, _ in jitters if jitter)
    assert chi_square(orders, list(permutations(("brightness", "contrast", "saturation", "hue")))) < 4
    for event, share in (
        ([view.flip for view in views], 0.5),
        ([bool(jitter) for jitter, _ in jitters], 0.8),
        ([grey for _, grey in jitters], 0.2),
    ):
        assert abs(np.mean(event) - share) < 4 * math.sqrt(share * (1 - share) / len(views))
    for name, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.6, 1.4),
        ("hue", -0.1, 0.1),
    ):
        factors = np.array([factor for jitter, _ in jitters for step, factor in jitter if step == name])
        ranks = (np.sort(factors) - low) / (high - low)
        # Kolmogorov and Smirnov: beyond 1.95 / sqrt(n) with a probability of 0.1 %
        assert np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max() < 1.95 / math.sqrt(len(ranks)), name


def jitter_of(steps: Sequence[tuple[str, float]]) -> tuple[Sequence[tuple[str, float]], bool]:
    """The jitter of a plan, and whether it drops the colour afterwards, which it says as a saturation of 0."""
    grey = steps[-1:] == (("saturation", 0.0),)
    return (steps[:-1] if grey else steps), grey


@pytest.mark.parametrize("length", [46, 47, 60])
def test_every_start_is_drawn_and_no_other(length: int) -> None:
    config = recipe()
    sampler = ClipSampler([record(length)], config.clip, config.augment, seed=1)
    assert {sampler.plan(index).start for index in range(250)} == set(release.starts(length))


def test_shorter_videos_are_left_out(make_video: Callable[..., Path], tmp_path: Path) -> None:
    lengths = (30, 45, 46, 47)
    for length in lengths:
        make_video(tmp_path / f"videos/{length}.mp4", frames=length, size=(32, 32))
    settings = {"root": tmp_path / "videos", "cache": tmp_path / "cache", "layout": "folder", "max_rejected": 0.5}
    config = recipe(*(f"data.{key}={value}" for key, value in settings.items()))
    found = find_training_videos(config, Console(enabled=False), None)
    assert [video.path for video in found.videos] == [f"{n}.mp4" for n in lengths if release.starts(n)]


@pytest.mark.parametrize("stride", [2, 4])
def test_evaluation_sees_the_frames_of_the_release(stride: int) -> None:
    config = recipe(f"clip.stride={stride}", "clip.min_remaining_frames=0")
    retrieval = config.retrieval
    for length in (*range(16, 70), 100, 179, 300, 1001):
        plans = evaluation_plans(
            [record(length)], [0], retrieval.clips_per_video, config.clip, config.augment, retrieval.clip_starts
        )
        expected = release.evaluation_frames(length, interval=stride)
        assert [list(plan.frame_numbers) for plan in plans] == expected, length


# --- Views


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> tuple[VideoRecord, np.ndarray]:
    """A lossless RGB video, and its pictures [T, H, W, 3]: colours of all saturations that move, with noise."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    t, y, x = np.meshgrid(np.arange(60), np.arange(120), np.arange(214), indexing="ij")
    waves = [np.sin(x / 17 + t / 5 + a) + np.cos(y / (11 + a) - t / 9) for a in range(3)]
    noise = np.random.default_rng(0).normal(0, 12, (60, 120, 214, 3))
    pictures = np.clip(127 + 70 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", "preset": "ultrafast"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 214, 120, "rgb24"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return probe(path), pictures


def loaded(load_clip: LoadClip, video: VideoRecord, plan: ClipPlan, size: int) -> Tensor:
    out = torch.full((len(plan.views), 3, plan.length, size, size), torch.nan, dtype=torch.float16)
    load_clip(Path(video.path), video, plan, size, tuple(out))
    return out


@pytest.mark.parametrize("load_clip", [reference.load_clip, cpu.load_clip], ids=["reference", "cpu"])
def test_views_are_those_of_the_release_bit_for_bit(film: tuple[VideoRecord, np.ndarray], load_clip: LoadClip) -> None:
    """In half precision, in which views travel."""
    config, (video, pictures) = recipe("clip.frames=8"), film
    sampler = ClipSampler([video], config.clip, config.augment, seed=5)
    seen: Counter[str] = Counter()
    for index in range(12):
        plan = sampler.plan(index)
        for want, made in zip(plan.views, loaded(load_clip, video, plan, 112), strict=True):
            jitter, grey = jitter_of(want.pillow_steps)
            seen.update(name for name, _ in jitter)
            seen.update(grey=grey, flip=want.flip, plain=not jitter)
            frames = pictures[list(plan.frame_numbers)]
            true = release.view(frames, top=want.top, left=want.left, jitter=jitter, grey=grey, flip=want.flip)
            assert torch.equal(made, true.half()), (index, want)
    assert min(seen.values()) >= 2, seen
    assert len(seen) == 7


def test_the_centre_view_is_that_of_the_release(film: tuple[VideoRecord, np.ndarray]) -> None:
    config, (video, pictures) = recipe("clip.frames=8"), film
    (plan,) = evaluation_plans([video], [0], 1, config.clip, config.augment, "official")
    (made,) = loaded(cpu.load_clip, video, plan, 112)
    true = release.view(pictures[list(plan.frame_numbers)], top=8, left=30)  # (171 - 112) / 2 = 29.5, to even
    assert torch.equal(made, true.half())


def test_frames_may_be_resized_without_pillows_jitter(film: tuple[VideoRecord, np.ndarray]) -> None:
    """Then the colours of the default follow, in which nothing is rounded or clamped."""
    config, (video, pictures) = recipe("clip.frames=8", "augment.arithmetic=linear"), film
    plan = ClipSampler([video], config.clip, config.augment, seed=1).plan(0)
    for want, made in zip(plan.views, loaded(cpu.load_clip, video, plan, 112), strict=True):
        frames = pictures[list(plan.frame_numbers)]
        plain = release.view(frames, top=want.top, left=want.left, flip=want.flip).double()
        color = torch.from_numpy(want.color).double()
        true = torch.einsum("rc,cthw->rthw", color[:, :3], plain) + color[:, 3, None, None, None]
        torch.testing.assert_close(made.double(), true, rtol=2**-11, atol=1e-6)


def test_pillows_jitter_may_follow_a_crop_of_the_frame_as_it_is(film: tuple[VideoRecord, np.ndarray]) -> None:
    config, (video, pictures) = recipe("clip.frames=8", "augment.resize=[0, 0]", "clip.size=104"), film
    sampler = ClipSampler([video], config.clip, config.augment, seed=1)
    plan = next(plan for plan in map(sampler.plan, range(20)) if plan.views[0].pillow_steps)
    want, made = plan.views[0], loaded(cpu.load_clip, video, plan, 104)[0]
    assert want.side == 104  # of 120: nothing is resized
    jitter, grey = jitter_of(want.pillow_steps)
    frames, location = pictures[list(plan.frame_numbers)], {"top": want.top, "left": want.left, "size": 104}
    true = release.view(frames, resize=(120, 214), **location, jitter=jitter, grey=grey, flip=want.flip)
    assert torch.equal(made, true.half())


def test_pillow_is_given_rounded_values() -> None:
    """Where the crop was made smaller, and is not of 8 bits any more."""
    frames = torch.randint(0, 256, (2, 3, 50, 60), dtype=torch.uint8)
    plan = ViewPlan(top=2, left=6, side=40, flip=False, color=IDENTITY_COLOR, pillow_steps=(("brightness", 1.2),))
    small_crop = reference.make_view(frames, replace(plan, pillow_steps=()), 27).permute(1, 2, 3, 0).numpy()
    for image, made in zip(np.rint(small_crop * 255), reference.make_view(frames, plan, 27).unbind(1), strict=True):
        true = np.array(release.adjusted(Image.fromarray(image.astype(np.uint8)), "brightness", 1.2))
        assert np.array_equal((made.permute(1, 2, 0) * 255).round().numpy(), true)


@pytest.mark.parametrize("keys", [("augment.arithmetic=linear",), ("augment.resize=[0, 0]",)], ids=str)
def test_dali_refuses_what_it_cannot_do(film: tuple[VideoRecord, np.ndarray], keys: tuple[str, ...]) -> None:
    """Even where nobody named it: its views would be other ones."""
    config, (video, _) = recipe("augment.color_jitter_prob=1", *keys), film
    catalog = Catalog(root=Path("/"), layout="folder", videos=(video,), rejected=(), missing=())
    plan = ClipSampler([video], config.clip, config.augment, seed=1).plan(0)
    backend = DaliBackend(catalog, size=112, threads=1, prefetch=1, pipelines=1, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match='"cpu" does'):
        next(backend.batches([[plan]]))


@pytest.mark.parametrize("keys", [("augment.arithmetic=linear",), ("augment.resize=[0, 0]",)], ids=str)
def test_loaders_are_not_timed_by_views_that_others_do_not_make(keys: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"augment\.resize and augment\.arithmetic"):
        bench_loader(Path("no folder"), None, recipe(*keys), clips=64, repeats=1, report=Console(enabled=False))


def test_an_evaluation_says_what_it_does_otherwise() -> None:
    assert describe_protocol(recipe()).split(":")[0].endswith("but for nothing")
    named = describe_protocol(recipe("augment.resize=[0, 0]", "retrieval.clip_starts=span", "model.cnn=r3d34"))
    assert "but for augment.resize, retrieval.clip_starts:" in named


@pytest.mark.parametrize("key", ["retrieval.clip_starts=span", "augment.resize=[128, 172]"])
def test_kept_features_are_those_of_the_same_clips(film: tuple[VideoRecord, np.ndarray], key: str) -> None:
    catalog = Catalog(root=Path("/"), layout="folder", videos=(film[0],), rejected=(), missing=())
    assert cache_key("weights", catalog, recipe(), "cpu") != cache_key("weights", catalog, recipe(key), "cpu")


def test_contrast_is_about_the_grey_of_each_frame(film: tuple[VideoRecord, np.ndarray]) -> None:
    """By the formula, so within one step of 8 bits: x -> m + c (x - m), m the mean of .299 R + .587 G + .114 B."""
    frames = film[1][[0, 31]] // 2 + np.array([[0], [90]], np.uint8)[..., None, None]  # a dark and a bright one
    for factor in (0.6, 1.4):
        for frame, made in zip(frames, apply_color_steps(frames, [("contrast", factor)]), strict=True):
            mean = (frame @ [0.299, 0.587, 0.114]).mean()
            true = np.clip(mean + factor * (frame - mean), 0, 255)
            assert np.abs(made - true).max() <= 1.5


def test_the_docs_name_every_key_of_the_recipe_that_is_not_the_default() -> None:
    page = (ROOT / "docs/official.md").read_text()
    changed = [line.partition(":")[0] for line in differences(Config(), recipe())]
    assert len(changed) > 12
    for key in set(changed) - {"name", "run", "data.root", "data.layout", "loader.backend"}:
        assert f"`{key} = {json.dumps(leaf(to_dict(recipe()), key))}`" in page, key


def leaf(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values[name]
    return values
