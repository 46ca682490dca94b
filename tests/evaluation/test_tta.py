"""Windows, scales and mirroring against what they must amount to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from segdist.evaluation.tta import InferenceMode, default_stride, slide_inference, window_offsets


def brightness(inputs: torch.Tensor) -> torch.Tensor:
    """A net that looks at single pixels only: two logits from the first channel."""
    return torch.cat([inputs[:, :1], 1 - inputs[:, :1]], 1)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("length", "window", "stride", "found"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),  # the last one flush with the end
        (4, 4, 1, [0]),
        (3, 4, 2, [0]),  # a window larger than the image
    ],
)
def test_windows_cover_a_side(length: int, window: int, stride: int, found: list[int]) -> None:
    assert window_offsets(length, window, stride) == found


def test_a_net_that_sees_single_pixels_says_the_same_through_any_window(image: torch.Tensor) -> None:
    whole = InferenceMode((64, 96)).predict(brightness, image, (64, 96))
    for window, stride in (((32, 32), (16, 32)), ((48, 40), (31, 7)), ((100, 200), (50, 50))):
        torch.testing.assert_close(slide_inference(brightness, image, window, stride), whole)
    mode = InferenceMode((64, 96), window=(32, 64))
    torch.testing.assert_close(mode.predict(brightness, image, (64, 96)), whole)


def test_overlapping_windows_give_their_mean() -> None:
    seen: list[float] = []

    def by_window(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(float(len(seen)))
        return torch.full((1, 2, 32, 32), seen[-1])

    found = slide_inference(by_window, torch.zeros(1, 3, 32, 48), (32, 32), (32, 16))
    assert found[0, 0, 0].unique_consecutive().tolist() == [0.0, 0.5, 1.0]


def test_logits_are_upsampled_to_the_answer(image: torch.Tensor) -> None:
    small = F.interpolate(image, size=(32, 48), mode="bilinear", align_corners=False, antialias=True)
    expected = F.interpolate(brightness(small), size=(64, 96), mode="bilinear", align_corners=False)
    torch.testing.assert_close(InferenceMode((32, 48)).predict(brightness, image, (64, 96)), expected)


def test_several_passes_give_the_mean_of_their_probabilities(image: torch.Tensor) -> None:
    passes = [InferenceMode((64, 96)), InferenceMode((32, 48))]
    expected = torch.stack([one.predict(brightness, image, (64, 96)).softmax(1) for one in passes]).mean(0)
    mode = InferenceMode((64, 96), scales=(1.0, 0.5))
    found = mode.predict(brightness, image, (64, 96))
    torch.testing.assert_close(found.softmax(1), expected)
    torch.testing.assert_close(found.exp(), expected)
    assert mode.num_passes == 2


def test_a_mirrored_pass_is_mirrored_back(image: torch.Tensor) -> None:
    shown = []

    def net(inputs: torch.Tensor) -> torch.Tensor:
        shown.append(inputs)
        return brightness(inputs)

    mode = InferenceMode((64, 96), mirror=True)
    found = mode.predict(net, image, (64, 96))
    assert torch.equal(shown[1], shown[0].flip(3))
    torch.testing.assert_close(found.softmax(1), brightness(image).softmax(1))
    assert mode.num_passes == 2


def test_windows_step_by_two_thirds_where_nothing_is_said() -> None:
    assert default_stride((512, 1024)) == (341, 682)
    assert default_stride((1, 1)) == (1, 1)


def test_several_passes_of_a_net_that_is_sure_of_the_wrong_class_have_a_finite_loss() -> None:
    def sure(inputs: torch.Tensor) -> torch.Tensor:
        return torch.tensor([500.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, *inputs.shape[-2:])

    found = InferenceMode((32, 32), scales=(1.0, 2.0), mirror=True).predict(sure, torch.zeros(1, 3, 32, 32), (32, 32))
    torch.testing.assert_close(found[0, 1], torch.full((32, 32), -500.0))
    torch.testing.assert_close(found[0, 0], torch.zeros(32, 32))
