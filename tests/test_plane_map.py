import numpy as np
import pytest
import torch

from hw3lib import runs
from hw3lib.experiments.part1.classifier import TrainClassifier, load_classifier, predict
from hw3lib.experiments.part1.plane_map import PlaneMap
from hw3lib.experiments.part1.vae_training import TrainVAE, load_vae

PLANE = TrainVAE(dataset="digits", latent_dim=2, num_filters=2, epochs=1)
READER = TrainClassifier(dataset="digits", epochs=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HW3_CACHE", str(tmp_path / "cache"))


def test_the_map_is_the_manifold_and_what_the_classifier_reads_on_it():
    stored = runs.compute(PlaneMap(vae=PLANE, classifier=READER, size=5), device="cpu")
    _, tiles = load_vae(PLANE).manifold(5)
    np.testing.assert_allclose(stored.arrays["tiles"] / 17, tiles.numpy(), atol=0.5 / 17 + 1e-6)
    read = predict(load_classifier(READER), tiles.flatten(0, 1)).argmax(1).view(5, 5)
    assert torch.equal(torch.from_numpy(stored.arrays["classes"]).long(), read)
    assert stored.verify() < 1e-6
    assert stored.provenance["data"] == runs.find(PLANE).provenance["data"]


def test_twenty_dimensions_have_no_map():
    with pytest.raises(ValueError, match="latent_dim=2"):
        PlaneMap(vae=PLANE.changed(latent_dim=20), classifier=READER).canary()
