"""Batches: their content, the images that they visit, and that a stream stopped anywhere continues
with the same bits, for both kinds of images.
"""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.data import (
    Augment,
    Batches,
    FileImages,
    ImageData,
    TensorImages,
    calibration_indices,
    evaluation_batches,
)
from supernet.errors import UserError
from supernet.randomness import Streams

COUNT, SIDE = 22, 6
AUGMENT = Augment(crop_padding=2, flip=True, cutout=2)


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(
        0,
        256,
        (COUNT, 3, SIDE, SIDE),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(1),
    )


@pytest.fixture(scope="module")
def labels():
    return torch.arange(COUNT) % 3


@pytest.fixture(scope="module")
def in_memory(pixels, labels):
    return TensorImages(pixels, labels)


@pytest.fixture(scope="module")
def in_files(pixels, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    paths = [str(folder / f"{i}.png") for i in range(COUNT)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return FileImages(paths, labels, SIDE)


@pytest.fixture
def images(request):
    return request.getfixturevalue(request.param)


BOTH_KINDS = pytest.mark.parametrize("images", ["in_memory", "in_files"], indirect=True)


def with_workers(images, workers):
    return FileImages(images.paths, images.labels, images.side, workers=workers)


def stream_of(images, streams, indices=None, batch_size=4, augment=AUGMENT):
    return Batches(
        images,
        torch.arange(3, COUNT) if indices is None else indices,
        batch_size,
        mean=torch.tensor([0.4, 0.5, 0.6]),
        std=torch.tensor([0.2, 0.25, 0.3]),
        augment=augment,
        order=streams.host("order"),
        noise=streams.tensor("augment"),
    )


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@BOTH_KINDS
def test_a_stream_restored_at_every_position_goes_on_bit_for_bit(images):
    streams = Streams(5)
    whole = stream_of(images, streams)
    assert whole.steps_per_epoch == 4
    saved, given = [], []
    for _ in range(3 * 4):
        saved.append(io.BytesIO())
        torch.save({"batches": whole.state_dict(), "streams": streams.state_dict()}, saved[-1])
        given.append(next(whole))
    for position, file in enumerate(saved):
        file.seek(0)
        state = torch.load(file, weights_only=False)
        streams = Streams(0)
        resumed = stream_of(images, streams)
        for _ in range(position % 3):
            next(resumed)  # what it did before it was restored must not matter
        resumed.load_state_dict(state["batches"])
        streams.load_state_dict(state["streams"])
        for batch in given[position : position + 6]:
            assert same(next(resumed), batch)


def test_worker_processes_change_nothing_of_it_and_draw_from_no_global_generator(
    in_memory, in_files
):
    before = torch.get_rng_state()
    streams, elsewhere = Streams(5), Streams(5)
    ahead, alone = stream_of(with_workers(in_files, 2), streams), stream_of(in_memory, elsewhere)
    for _ in range(6):
        assert same(next(ahead), next(alone))
    position, chance = ahead.state_dict(), streams.state_dict()
    streams = Streams(0)
    resumed = stream_of(with_workers(in_files, 2), streams)
    resumed.load_state_dict(position)
    streams.load_state_dict(chance)
    for _ in range(3):
        assert same(next(resumed), next(alone))
    assert torch.equal(torch.get_rng_state(), before)


@BOTH_KINDS
def test_an_epoch_visits_every_index_once_but_for_the_rest_that_fills_no_batch(images, pixels):
    indices = torch.tensor([1, 2, 3, 5, 8, 13, 21, 0, 20])
    batches = stream_of(images, Streams(0), indices, batch_size=4, augment=None)
    scale = 255 * torch.tensor([0.2, 0.25, 0.3])[:, None, None]
    shift = 255 * torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    orders = []
    for _ in range(5):
        seen = []
        for x, y in (next(batches) for _ in range(batches.steps_per_epoch)):
            assert (
                x.dtype == torch.float32
                and y.dtype == torch.int64
                and x.shape == (4, 3, SIDE, SIDE)
            )
            raw = (x * scale + shift).round().to(torch.uint8)
            which = [int((pixels == image).flatten(1).all(1).nonzero()) for image in raw]
            assert y.tolist() == [i % 3 for i in which]
            seen += which
        assert len(seen) == len(set(seen)) == 8 and set(seen) < set(indices.tolist())
        orders.append(tuple(seen))
    assert len(set(orders)) == 5, "a new order in every epoch"


def test_fewer_images_than_a_batch_make_one_batch_of_all(in_memory):
    batches = stream_of(in_memory, Streams(0), torch.tensor([4, 7, 9]), batch_size=64)
    assert batches.steps_per_epoch == 1
    for _ in range(3):
        assert sorted(next(batches)[1].tolist()) == [0, 1, 1]


@BOTH_KINDS
def test_evaluation_gives_all_images_in_their_order_normalised_and_nothing_else(
    images, pixels, labels
):
    mean, std = np.array([0.1, 0.2, 0.3]), np.array([0.5, 0.6, 0.7])
    indices = torch.tensor([20, 3, 4, 4, 0, 1, 2])
    batches = list(
        evaluation_batches(
            images,
            indices,
            3,
            torch.tensor(mean, dtype=torch.float32),
            torch.tensor(std, dtype=torch.float32),
        )
    )
    assert [len(y) for _, y in batches] == [3, 3, 1]
    expected = (pixels[indices].permute(0, 2, 3, 1).numpy() / 255 - mean) / std
    np.testing.assert_allclose(
        torch.cat([x for x, _ in batches]).permute(0, 2, 3, 1).numpy(), expected, atol=1e-6
    )
    assert torch.equal(torch.cat([y for _, y in batches]), labels[indices])


@BOTH_KINDS
def test_blanked_pixels_have_the_mean_colour_and_padding_is_black(images, pixels):
    x, _ = next(stream_of(images, Streams(0), augment=Augment(cutout=3)))
    assert ((x == 0).all(1).flatten(1).sum(1) >= 4).all()
    black = (0 - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.25, 0.3])
    x, _ = next(stream_of(images, Streams(0), augment=Augment(crop_padding=5)))
    assert torch.isclose(x, black[:, None, None]).all(1).any()


def test_a_state_of_other_data_and_settings_that_do_not_fit_are_refused(in_memory):
    state = {"epoch": torch.arange(7), "position": 0}
    with pytest.raises(UserError, match="saved order is of 7 images, but there are 19"):
        stream_of(in_memory, Streams(0)).load_state_dict(state)
    with pytest.raises(UserError, match="cutout=16 is too large for images of 6×6 pixels"):
        stream_of(in_memory, Streams(0), augment=Augment(cutout=16))
    with pytest.raises(UserError, match="there are no images to train on"):
        stream_of(in_memory, Streams(0), torch.tensor([], dtype=torch.int64))
    with pytest.raises(UserError, match="batch_size=0"):
        stream_of(in_memory, Streams(0), batch_size=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_line_that_names_it(in_files, workers, tmp_path):
    good = tmp_path / "good.png"
    Image.new("RGB", (64, 64), (200, 100, 50)).save(good)
    broken = tmp_path / "broken.png"
    broken.write_bytes(good.read_bytes()[:60])
    images = FileImages([*in_files.paths[:-1], str(broken)], in_files.labels, SIDE, workers=workers)
    with pytest.raises(UserError, match=r"broken\.png: cannot be read \(") as caught:
        for _ in images.stream(torch.arange(COUNT), 4):
            pass
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"gone\.png: cannot be read \(missing\)"):
        FileImages([str(tmp_path / "gone.png")], torch.tensor([0]), SIDE).fetch(torch.tensor([0]))


@BOTH_KINDS
def test_mean_and_deviation_are_those_of_the_training_pixels(images, pixels):
    data = ImageData.of("some", images, images)
    values = pixels.numpy() / 255
    np.testing.assert_allclose(data.mean, values.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(data.std, values.std((0, 2, 3)), rtol=1e-5)
    assert (data.classes, data.channels, data.size) == (3, 3, (SIDE, SIDE))


def test_a_channel_that_never_varies_is_not_divided_by_zero(labels):
    images = TensorImages(torch.full((COUNT, 1, 4, 4), 7, dtype=torch.uint8), labels)
    data = ImageData.of("flat", images, images)
    x, _ = next(evaluation_batches(images, torch.arange(4), 4, data.mean, data.std))
    assert x.abs().max() < 1e-3


@pytest.mark.parametrize("batches", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("count", [2, 3, 5, 8, 9, 12, 17, 33])
def test_no_batch_of_the_recalibration_is_small_or_of_one_image(count, size, batches):
    """The statistics of BatchNorm are the plain mean over the batches, so that an image in a small
    batch would weigh more than others; and a single image may have no variance.
    """
    indices = torch.arange(100, 100 + count)
    used, of = calibration_indices(indices, size, batches)
    assert torch.equal(used, indices[: len(used)])
    parts = [len(part) for part in used.split(of)]
    assert 1 <= len(parts) <= batches and min(parts) > 1
    assert 2 * min(parts) >= max(parts)
    assert len(used) > min(count, max(size, 2) * batches) - max(size, 2) / 2 - 1
