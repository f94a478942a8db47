"""``cnn bench``: a table, and the figures in it as JSON."""

import json

from cnn.__main__ import main


def test_bench_prints_a_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("cnn.commands.bench._STEPS", 2)
    monkeypatch.setattr("cnn.commands.bench._INFERENCE", {1: 3, 8: 2})
    written = tmp_path / "bench.json"
    words = ["bench", "--batch-size", "16", "--device", "cpu", "--json", str(written)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "the first time, its kernels are compiled" in shown.err
    title, *rows = shown.out.splitlines()
    assert title.split() == ["speedrun", "on", "cpu", "images/s", "ms", "per", "batch", "slowest"]
    results = json.loads(written.read_text())
    names = ["training, batch 16", "inference, batch 1", "inference, batch 8"]
    assert list(results) == ["recipe", "device", *names]
    for row, name in zip(rows, names, strict=True):
        assert row.startswith(name)
        rate, milliseconds, slowest = (float(t.replace(",", "")) for t in row[30:].split())
        size = int(name.rpartition(" ")[2])
        assert 0 < milliseconds <= slowest
        assert abs(rate * milliseconds / 1e3 / size - 1) < 0.1
        assert len(results[name]["seconds"]) == (5 if size == 16 else {1: 3, 8: 2}[size])
