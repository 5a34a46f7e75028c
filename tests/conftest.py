"""What tests of several folders share: videos they encode themselves, and real footage where there is some."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.video.stream import VideoStream

from tests.launch import ROOT

DISTRIBUTED = ("distributed",)
SLOW = (
    "benchmarks/harness/test_timing.py::test_memory_is_seen",
    "benchmarks/kernels/test_compiled_problems.py",
    "benchmarks/kernels/test_kernel_benchmark.py",
    "benchmarks/kernels/test_problems.py",
    "benchmarks/scripts/test_clip_loader_loop.py",
    "benchmarks/scripts/test_draw_results.py",
    "benchmarks/scripts/test_loader_settings.py",
    "benchmarks/scripts/test_make_corpus.py",
    "benchmarks/rivals/test_steps.py::test_the_steps_are_equal",
    "benchmarks/step/test_step_benchmark.py",
    "benchmarks/test_gpu_kit.py",
    "benchmarks/test_gpu_questions.py",
    "checkpoints/test_checkpoint.py::test_a_transformer_on_tubelets_comes_back_with_its_batch_statistics",
    "commands/test_ablate.py",
    "commands/test_bench_kernels.py",
    "commands/test_bench_loader.py",
    "commands/test_bench_step.py",
    "commands/test_completion.py",
    "commands/test_data.py::test_a_scan_prints_names_that_are_no_utf8",
    "commands/test_data.py::test_synth_prints_where_its_list_lies",
    "commands/test_data.py::test_what_was_guessed_or_is_missing_is_said_by_every_command",
    "commands/test_finetune.py",
    "commands/test_options.py",
    "commands/test_plugins.py",
    "commands/test_prepare.py",
    "commands/test_profile.py",
    "commands/test_recognition.py",
    "commands/test_retrieval.py",
    "commands/test_search.py",
    "commands/test_several_roots.py",
    "commands/test_signals.py",
    "commands/test_train_without_config.py",
    "commands/test_ucf101_hmdb51.py",
    "commands/test_wait_policy.py",
    "evaluation/test_attentive_probe.py::test_a_class_that_stands_in_one_of_many_tokens_is_found_by_attention_alone",
    "evaluation/test_features.py::test_a_killed_extraction_goes_on",
    "evaluation/test_recognition.py::test_the_setting_is_the_first_of_the_best",
    "evaluation/test_search.py::test_rows_that_only_float64_tells_apart",
    "examples/test_lightning_trainer.py",
    "examples/test_plain_torch.py",
    "export/test_export.py::test_files_compute_what_the_encoder_computes",
    "export/test_export.py::test_the_command_writes_both_encoders_of_a_run",
    "export/test_without_cacl.py",
    "golden/test_resume.py",
    "golden/test_short_run.py::test_contrast_tells_sixteen_videos_apart",
    "golden/test_short_run.py::test_order_is_learnt_by_heart",
    "golden/test_short_run.py::test_two_processes_give_the_same_bits",
    "kernels/test_compiled_augment.py",
    "kernels/test_compiled_contrast.py",
    "kernels/test_compiled_edit_distance.py",
    "kernels/test_compiled_symmetric.py",
    "kernels/test_contrast.py::test_anchors_and_keys_around_what_is_taken_at_once",
    "kernels/test_contrast.py::test_compiled_for_batches_of_any_size",
    "kernels/test_contrast.py::test_one_graph_serves_batches_of_any_size",
    "kernels/test_contrast_memory.py",
    "kernels/test_edit_distance.py::test_compiles_once_for_all_sizes_of_the_batch",
    "kernels/test_edit_distance.py::test_parts_of_sequences_agree_with_rapidfuzz",
    "kernels/test_edit_distance_of_orders.py",
    "loaders/backends/dali/test_dali_batches.py::test_batches_keep_their_order_and_length",
    "loaders/backends/test_thread_pool.py::test_threads_of_a_fresh_process_are_left_alone",
    "loaders/catalog/test_scan_cache.py::test_another_decoder_looks_again",
    "loaders/catalog/test_scan_prepared.py::test_opening_many_videos_takes_little_memory",
    "loaders/decode/test_fragments.py::test_views_are_those_of_the_file_read_as_any_other",
    "loaders/decode/test_remote_sets.py::test_a_remote_set_is_the_local_one",
    "loaders/decode/test_seek_points.py",
    "loaders/decode/test_storage.py",
    "loaders/prepared/test_prepare.py::test_the_same_bytes_with_any_number_of_workers",
    "loaders/prepared/test_prepare_again.py",
    "loaders/prepared/test_shards.py",
    "loaders/prepared/test_target.py",
    "loaders/synthetic/test_dataset.py",
    "loaders/synthetic/test_render.py",
    "loaders/test_failing_files.py",
    "loaders/test_several_roots.py",
    "loaders/test_views_apart.py::test_a_clip_fails_once_whichever_moment_is_damaged",
    "loaders/test_views_apart.py::test_a_clip_on_which_dali_fails_fails_once",
    "loaders/test_views_apart.py::test_a_served_set_shows_the_same_frames",
    "loaders/test_views_apart.py::test_no_distance_changes_no_bit",
    "loaders/test_views_apart.py::test_other_backends_show_the_same_frames",
    "method/test_cacl.py::test_videos_of_a_batch_are_learnt_by_heart",
    "models/test_cnn3d.py::test_c3d_ends_in_the_retrieval_feature_of_the_method",
    "models/test_create.py::test_every_name_is_a_model_whose_features_are_as_long_as_it_says",
    "models/test_embedder_weights.py",
    "official/test_finetuning.py",
    "official/test_networks.py::test_the_embedder_is_torchvisions_resnet50_with_the_weights_of_a_moco",
    "official/test_steps.py",
    "official/test_views.py::test_views_are_those_of_the_release_bit_for_bit",
    "reporting/test_charts.py",
    "reporting/test_wandb_and_trackio.py",
    "reports/test_recognition.py",
    "reports/test_retrieval.py",
    "reports/test_training.py",
    "search/test_embed.py::test_a_killed_process_goes_on",
    "test_clip_walk.py",
    "test_forked.py",
    "test_packaging.py",
    "training/test_checkpointer.py::test_a_resumed_run_may_change_how_it_runs",
    "training/test_choices.py::test_a_step_on_a_cpu_takes_less_than_four_gib",
    "training/test_choices.py::test_what_is_chosen_holds_together",
    "training/test_failing_files.py",
    "training/test_failure_log.py::test_a_disk_that_went_away_ends_a_large_run_soon",
    "training/test_finetuning.py",
    "training/test_knn_validation.py",
    "training/test_several_roots.py",
    "training/test_train_state.py::test_compiled_encoders_learn_the_same",
)
"""Folders, files and single tests that have a mark, relative to this folder. `make check` runs the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what stands in these folders and files, and these tests."""
    for item in items:
        path = _places_of(item.path)
        places = {*path, f"{path[0]}::{getattr(item, 'originalname', item.name)}"}
        for mark, marked in ((pytest.mark.distributed, DISTRIBUTED), (pytest.mark.slow, SLOW)):
            if not places.isdisjoint(marked):
                item.add_marker(mark)


@functools.cache
def _places_of(path: Path) -> list[str]:
    """Returns a file and the folders that it is in, relative to this one."""
    file = path.relative_to(Path(__file__).parent)
    return [place.as_posix() for place in (file, *file.parents)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Lets pytest-xdist send what a test logged, in UTF-8, even if it names files whose names are no UTF-8."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """`make_video(path, frames=..., ...)` encodes a small video and returns its path."""
    return encode


def encode(
    path: Path,
    *,
    frames: int = 24,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    rate: int | Fraction = 25,
    gop: int = 12,
    bframes: int = 0,
    pixels: str = "yuv420p",
    first: int = 0,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Encodes `frames` pictures (see `picture`) of width x height pixels; the suffix of the path gives the container.

    `gop`: frames from one key frame to the next. `first`: the number of the first picture. `options`: further ones of
    the codec. `muxer`: options of the container, such as {"movflags": "faststart"}.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _unchanged_scheduling(),
        av.open(str(path), "w", options={"fflags": "+bitexact", **(muxer or {})}) as container,
    ):
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = gop, bframes, 1
        if (codec, path.suffix) == ("libx265", ".mp4"):
            context.codec_tag = "hvc1"
        context.options = {
            "libx264": {"preset": "veryfast", "sc_threshold": "0", "crf": "18"},
            "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
            "mpeg4": {"qscale": "3", "sc_threshold": "1000000000"},
            "libx265": {"preset": "ultrafast", "x265-params": f"log-level=none:keyint={gop}"},
            "libsvtav1": {"preset": "12"},
        }.get(codec, {}) | (options or {})
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def _unchanged_scheduling() -> Iterator[None]:
    """Takes back what encoding does to the thread that calls it.

    As root, SVT-AV1 makes it a real-time thread. All other processes would wait for this one, and for those that it
    starts, to the end of the tests.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@pytest.fixture(autouse=True)
def _scheduled_as_before() -> Iterator[None]:
    """Notices a test after which its process is more urgent than others."""
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Lets sums be taken in one order, as in processes that are started with OMP_NUM_THREADS=1."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def trimmed() -> Callable[[Path, Path], Path]:
    """`trimmed(whole, path)` writes a video of 25 frames a second without its first four, and returns the path.

    An edit list hides them: the frames stay in the file, since others refer to them.
    """

    def trim(whole: Path, path: Path) -> Path:
        with av.open(str(whole)) as source, av.open(str(path), "w") as container:
            stream = source.streams.video[0]
            assert stream.time_base
            shift = round(4 / 25 / stream.time_base)
            copy = container.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.pts is not None and packet.dts is not None:
                    packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                    container.mux(packet)
        return path

    return trim


def picture(number: int, size: tuple[int, int]) -> np.ndarray:
    """Returns uint8 [H, W, 3]: gradients in red (to the right), green (downwards) and blue (over time).

    Across the upper half eight bars, black or white, spell the frame number modulo 256 in binary, with the lowest bit
    at the left.
    """
    width, height = size
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    image[..., 2] = number * 7 % 256
    bits = np.arange(width) * 8 // width
    image[: height // 2] = (number >> bits & 1)[None, :, None] * 255
    return image


@pytest.fixture(scope="session")
def footage() -> Path:
    """A folder of real videos (`formats/`, `ut_interaction/`) that does not come with the repository."""
    named = os.environ.get("CACL_TEST_FOOTAGE")
    place = Path(named) if named else ROOT.parent / "shared" / "data"
    if named:
        assert place.is_dir(), f"CACL_TEST_FOOTAGE={named} is no folder"
    elif not place.is_dir():
        pytest.skip(f"no footage: CACL_TEST_FOOTAGE is not set and {place} does not exist")
    return place
