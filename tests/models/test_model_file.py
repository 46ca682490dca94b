"""model.pt comes back as it was saved; weights of others load, and say what was left out."""

import pytest
import torch

from segdist.config import ConfigError
from segdist.data.labels import load_label_set
from segdist.models.build import build_net, count_parameters
from segdist.models.init_weights import load_init_weights, load_pretrained
from segdist.models.model_file import ModelInfo, load_model, save_model


def test_a_model_comes_back_as_it_was_saved(tmp_path):
    net = build_net("unet", 13, 8)
    info = ModelInfo("unet", 8, load_label_set("street13"), count_parameters(net))
    save_model(tmp_path / "model.pt", info, net.state_dict())
    loaded, found = load_model(tmp_path / "model.pt")
    assert found == info
    assert not loaded.training
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), net.state_dict().values()))
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zip file", "holds no weights that can be read"),
        (None, "is missing; train first, or give another file"),
        ({"weights": {}}, "is no model.pt of this suite"),
    ],
)
def test_a_file_that_is_no_model_is_refused_with_its_name(tmp_path, content, message):
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as refused:
        load_model(path)
    assert str(path) in str(refused.value)


def test_a_file_that_holds_code_is_not_run(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("run!",))

    torch.save({"format": Evil()}, tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="holds no weights that can be read"):
        load_model(tmp_path / "model.pt")
    assert capsys.readouterr().out == ""
    torch.load(tmp_path / "model.pt", weights_only=False)
    assert capsys.readouterr().out == "run!\n"  # it would have been


def imagenet_file(path):
    """As ``hrnetv2_w18_imagenet_pretrained.pth``: the backbone's names, and a classification head beside it."""
    weights = {name: t for name, t in build_net("hrnetv2_w18", 1).state_dict().items() if not name.startswith("last")}
    weights |= {
        "incre_modules.0.0.conv1.weight": torch.zeros(32, 18, 1, 1),
        "classifier.weight": torch.zeros(1000, 2048),
    }
    torch.save(weights, path)
    return weights


def test_the_official_imagenet_weights_load_but_for_the_head(tmp_path):
    weights = imagenet_file(tmp_path / "imagenet.pth")
    net = build_net("hrnetv2_w18", 13)
    loaded = load_pretrained(net, str(tmp_path / "imagenet.pth"))
    assert (loaded.num_loaded, loaded.num_tensors) == (len(weights) - 2, len(net.state_dict()))
    assert loaded.unexpected_keys == ("incre_modules.0.0.conv1.weight", "classifier.weight")
    assert {name.split(".")[0] for name in loaded.missing_keys} == {"last_layer"}
    assert torch.equal(net.conv1.weight, weights["conv1.weight"])
    lines = loaded.lines()
    assert f"{loaded.num_loaded} of the net's {loaded.num_tensors} tensors loaded" in lines[0]
    assert "2 left out, the net has none of that name: incre_modules.0.0.conv1.weight, classifier.weight" in lines[1]
    assert "keep their fresh values, not in the file: last_layer.0.weight" in lines[2]


def test_the_official_cityscapes_weights_load_from_under_their_wrapper(tmp_path):
    source = build_net("hrnetv2_w18", 19)
    torch.save({"state_dict": {f"model.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "cityscapes.pth")
    net = build_net("hrnetv2_w18", 19)
    loaded = load_pretrained(net, str(tmp_path / "cityscapes.pth"))
    assert loaded.num_loaded == loaded.num_tensors
    net13 = build_net("hrnetv2_w18", 13)
    other = load_pretrained(net13, str(tmp_path / "cityscapes.pth"))
    assert [line.split()[0] for line in other.mismatched_keys] == ["last_layer.3.weight", "last_layer.3.bias"]
    assert "(19, 270, 1, 1) for (13, 270, 1, 1)" in other.mismatched_keys[0]


def test_this_suites_own_model_is_a_start_too(tmp_path):
    net = build_net("unet", 13, 8)
    save_model(tmp_path / "m.pt", ModelInfo("unet", 8, load_label_set("street13"), 1), net.state_dict())
    assert load_pretrained(build_net("unet", 13, 8), str(tmp_path / "m.pt")).missing_keys == ()


def test_a_file_of_which_nothing_fits_is_refused(tmp_path):
    torch.save(build_net("unet", 13, 8).state_dict(), tmp_path / "unet.pth")
    net = build_net("hrnetv2_w18", 13)
    before = net.conv1.weight.clone()
    with pytest.raises(ConfigError, match=r"--init .*unet.pth: none of its \d+ tensors fits this net"):
        load_pretrained(net, str(tmp_path / "unet.pth"))
    assert torch.equal(net.conv1.weight, before)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ConfigError, match="holds no table of tensors"):
        load_pretrained(net, str(tmp_path / "list.pth"))


def test_imagenet_weights_want_the_whole_backbone(tmp_path):
    weights = imagenet_file(tmp_path / "whole.pth")
    net = build_net("hrnetv2_w18", 13)
    assert load_init_weights(net, "imagenet", str(tmp_path / "whole.pth")).num_loaded == len(weights) - 2
    lacking = {name: tensor for name, tensor in weights.items() if name != "conv1.weight"}
    torch.save({**lacking, "stage4.2.fuse_layers.3.2.0.1.bias": torch.zeros(3)}, tmp_path / "lacking.pth")
    said = r"--init imagenet .*: lacks 2 tensors of the net's backbone \(first: conv1.weight\); give the classification"
    with pytest.raises(ConfigError, match=said):
        load_init_weights(net, "imagenet", str(tmp_path / "lacking.pth"))
    assert load_init_weights(net, "weights", str(tmp_path / "lacking.pth")).num_loaded == len(weights) - 4
    with pytest.raises(ConfigError, match=r"imagenet .*: lacks \d+ tensors"):
        load_init_weights(build_net("hrnetv2_w48", 13), "imagenet", str(tmp_path / "whole.pth"))
