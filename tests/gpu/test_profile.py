"""`make profile` on a few small shapes."""

import json
from argparse import Namespace

import pytest

from tests.gpu import device, profile
from tests.gpu.bound import LAUNCH, bound_of_all
from tests.gpu.gpus import GPUS


@pytest.fixture(autouse=True)
def emulated_gpu(cupy):
    if device.real_gpu():
        pytest.skip("the GPU is a real one")


def test_a_row_of_the_benchmark():
    options = Namespace(images=2, elements=1000, only="relu: 16M")
    ((name, counted, about),) = profile.counted_kernels(options)
    assert (name, about) == ("relu: 16M", {"scaled": {"count": [2**24, 1000]}})
    row = profile.described(name, counted, GPUS["h100"], about)
    (launch,) = row["launches"]
    figures = launch["figures"]
    assert (figures["global_load_sectors"], figures["global_store_sectors"]) == (125, 125)
    assert row["bytes"] == {"read": 4000, "written": 4000, "touched": 8000}
    assert launch["bound"] == {"seconds": LAUNCH, "by": "launch", "parts": launch["bound"]["parts"]}
    text = profile.lines(
        {**row, "launches": [{**launch, "instructions": 1_045_440, "issued": 1_045_440}]},
        GPUS["h100"],
    )
    assert text[0].startswith("relu: 16M [count 1000 of 16777216]")
    # By 132 multiprocessors, four at a time, at 1.98 GHz.
    assert len(text) == 2 and "1,045,440     1.00" in text[1]


def test_a_planned_step():
    counted = profile.counted_step("speedrun", 8)
    row = profile.described("step", counted, GPUS["h100"], {})
    names = [launch["kernel"] for launch in row["launches"]]
    assert names[0] == "gather_batch" and names[-1].startswith("sgd")
    # Both gradients of a layer are one launch, and the optimizer adds up their parts.
    assert len(names) == 10 and all("gradient" in name for name in names[5:9])
    # The images have one channel.
    assert names[1:3] == ["one_channel_pool_forward", "conv2d_pool_forward"]
    # The optimizer reads parameters, velocity and gradients or, of some, partial sums; it writes
    # these gradients, too.
    (update,) = (launch for launch in row["launches"] if launch["kernel"].startswith("sgd"))
    read, written = (update["bytes"][key] for key in ("read", "written"))
    assert 2 * 4 * 215_194 < written < 3 * 4 * 215_194 < read
    assert row["bound"]["seconds"] == pytest.approx(
        sum(launch["bound"]["seconds"] for launch in row["launches"]), rel=1e-3
    )


def test_rows_that_are_not_asked_for_stay(tmp_path):
    path = tmp_path / "profile-h100.json"
    path.write_text('{"rows": [{"row": "another"}, {"row": "relu: 16M", "old": 1}]}')
    options = Namespace(here="h100", results=tmp_path, batch=1, images=2, elements=1000)
    options.only = "relu: 16M"
    profile.profile(options)
    another, relu = json.loads(path.read_text())["rows"]
    assert another == {"row": "another"} and "old" not in relu
    # The bound can be taken again of what the file has.
    counted = profile.counts(relu)
    assert bound_of_all(counted, GPUS["h100"]).seconds == pytest.approx(relu["bound"]["seconds"])


def test_a_name_that_no_row_has_is_an_error(tmp_path):
    options = Namespace(here="h100", results=tmp_path, batch=1, images=2, elements=1000)
    options.only = "nothing"
    with pytest.raises(SystemExit, match="--only: no row has 'nothing' in its name"):
        profile.profile(options)
    assert not list(tmp_path.iterdir())
