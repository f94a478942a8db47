"""What bench/results shows to meet its goal stays so."""

from tests.gpu import goals

#: Rows that miss a goal on one GPU at least.
MISSED = {
    "conv2d forward: ResNet 64-128, stride 2",
    "conv2d forward: ResNet 256-64, 1x1",
    "conv2d weight gradient: ResNet 64",
    "conv2d weight gradient: ResNet 128",
    "conv2d weight gradient: ResNet 64-128, stride 2",
    "conv2d input gradient: ResNet 64-128, stride 2",
    "conv2d weight gradient: ResNet 256-64, 1x1",
    "conv2d input gradient: ResNet 256-64, 1x1",
    "conv2d weight gradient: speedrun 2",
    "conv2d forward: batch-norm net 5, bf16",
    "conv2d forward: ResNet 64, bf16",
    "conv2d forward: ResNet 128, bf16",
    "conv2d forward: ResNet 256, bf16",
    "conv2d forward: ResNet 64-128, stride 2, bf16",
    "conv2d forward: ResNet 256-64, 1x1, bf16",
    "conv2d gradients: batch-norm net 5, bf16",
    "conv2d gradients: ResNet 64, bf16",
    "conv2d gradients: ResNet 128, bf16",
    "conv2d gradients: ResNet 256, bf16",
    "conv2d gradients: ResNet 64-128, stride 2, bf16",
    "conv2d gradients: ResNet 256-64, 1x1, bf16",
    "dense forward: speedrun 1, bf16",
    "dense forward: large, bf16",
    "dense gradients: large, bf16",
    "dense gradients: speedrun 1, bf16",
    "max_pool2d: ResNet stem",
    "max_pool2d gradient: ResNet stem",
    "batch_norm: 14x14, 32 channels",
    "batch_norm gradient: 14x14, 32 channels",
    "softmax: 256 x 32768",
    "softmax_cross_entropy: 256 x 32768",
    "affine_warp: 1024 digits",
    "softmax gradient: 256 x 32768",
}


def test_what_is_met_stays_met():
    missed = {one.row for one in goals.found() if not one.met}
    assert missed - MISSED == set(), "missed, though met before"
    assert MISSED - missed == set(), "met by now"


def test_every_goal_has_rows():
    shown = {(one.goal, one.model) for one in goals.found()}
    assert shown == {(goal, model) for goal in goals.GOALS for model in goal.models}


def test_the_command_prints_every_value(capsys):
    goals.main()
    text, values = capsys.readouterr().out, list(goals.found())
    assert text.count(" met ") == sum(one.met for one in values)
    assert text.count(" missed") == sum(not one.met for one in values)
