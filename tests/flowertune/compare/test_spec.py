"""What a comparison is asked for with: words, files, and everything that is wrong at once."""

import pytest

from flowertune.base.errors import SettingsError, UserError
from flowertune.compare.spec import Asked, grid_of, read_grid_file, read_method, read_vary
from tests.apps import rendered

FILE = """\
methods = ["fedavg", "fedprox: mu=0.1"]
seeds = [3, 4]
supernodes = 5
equal = "bytes"
budget = 100
arms = []
hold-out = 0
run-config = "quickstart.toml"

[settings]
num-server-rounds = 7
train.training-arguments.max-steps = 1

[vary]
train.transport = ["float32", "int8"]
"""


def test_a_file_asks_for_what_the_command_line_does(tmp_path):
    app, file = rendered("finance"), tmp_path / "grid.toml"
    (tmp_path / "quickstart.toml").write_bytes((app / "quickstart.toml").read_bytes())
    file.write_text(FILE)
    grid = grid_of(app, read_grid_file(file))
    assert grid.methods == (("fedavg", ""), ("fedprox", "mu=0.1"))
    assert (grid.seeds, grid.nodes, grid.arms) == ((3, 4), 5, ())
    assert (grid.equal, grid.budget_mib) == ("bytes", 100)
    assert grid.vary == {"train.transport": ("float32", "int8")}
    assert grid.settings["model.name"] == "smollm2-135m-instruct"  # of the quickstart
    assert grid.settings["num-server-rounds"] == 7  # of the grid itself, over the quickstart's
    assert grid.settings["train.training-arguments.max-steps"] == 1
    over = Asked(seeds=[9]).over(read_grid_file(file))
    assert grid_of(app, over).seeds == (9,)


def test_without_words_seeds_arms_and_supernodes_are_the_documented_ones():
    grid = grid_of(rendered("finance"), Asked(methods=["fedavg"]))
    assert (grid.seeds, grid.equal) == ((1, 2, 3), "tokens")
    assert grid.arms == ("base", "local", "centralised")
    assert grid.nodes == 50
    assert grid.settings["train.keep-states"] == 3


def problems(asked: Asked) -> str:
    with pytest.raises(SettingsError) as refusal:
        grid_of(rendered("finance"), asked)
    return "\n".join(refusal.value.problems)


def test_all_wrong_words_are_named_at_once():
    asked = Asked(
        methods=["fedavg", "fedawg"], seeds=[-1], vary={"seed": [1], "train.trnsport": ["int8"]},
        settings={"strategy.name": "fedavg"}, arms=["bass"], equal="rows", hold_out=1.5,
        score="some", supernodes=0, budget=3.0,
    )  # fmt: skip
    said = problems(asked)
    for word in (
        "'fedawg' is no method", "--seeds has -1", "'seed', which is decided by --seeds",
        "'train.trnsport' (did you mean 'train.transport'?)", "decided by the methods",
        "--arms has bass", "--equal is 'rows'", "--hold-out is 1.5", "--score is 'some'",
        "--supernodes is 0", "--budget is the budget of --equal bytes",
    ):  # fmt: skip
        assert word in said, word


def test_all_wrong_values_of_all_runs_are_named_at_once_and_once():
    said = problems(
        Asked(
            methods=["fedavg", "fedprox:mu=-1", "scaffold:x=1"],
            vary={"train.transport": ["float32", "int3"], "model.quantization": [5]},
            partitioners=["dirichlet:alpha=0"],
        )
    )
    lines = said.split("\n")
    assert len(lines) == len(set(lines)) == 5
    assert "alpha" in said
    for word in ("'int3'", "quantization is 5", "gives mu of fedprox the value '-1'", "'x=1'"):
        assert word in said


def test_no_method_and_no_steps_are_refused():
    assert "there is nothing to compare" in problems(Asked())
    steps = {"train.training-arguments.max-steps": 0, "model.quantization": 4}
    assert "a comparison trains" in problems(Asked(methods=["fedavg"], settings=steps))


def test_a_class_that_the_app_names_is_a_method(tmp_path):
    from tests.methods import copy_of_app, edit

    app = copy_of_app(tmp_path)
    edit(app, "strategy.py", '"fedavg": LoraFedAvg', '"fedavg": LoraFedAvg, "mine": LoraFedAvg')
    assert grid_of(app, Asked(methods=["mine"])).methods == (("mine", ""),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('methds = ["fedavg"]', "did you mean 'methods'?"),
        ("seeds = [1.5]", "use a list of whole numbers"),
        ('methods = "fedavg"', "use a list of names"),
        ("vary = [1]", "use a table of lists"),
        ("seeds = [", "is not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_sentence(tmp_path, text, said):
    file = tmp_path / "grid.toml"
    file.write_text(text)
    with pytest.raises(UserError) as refusal:
        read_grid_file(file)
    assert said in str(refusal.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_grid_file(tmp_path / "none.toml")


def test_values_that_vary_are_toml_or_plain_words():
    assert read_vary("a.b=0.5,1.0") == ("a.b", [0.5, 1.0])
    assert read_vary("a.b=true,false") == ("a.b", [True, False])
    assert read_vary("a.b='x, y','z'") == ("a.b", ["x, y", "z"])
    assert read_vary("a.b=float32,int8") == ("a.b", ["float32", "int8"])
    for wrong in ("a.b", "=1", "a.b="):
        with pytest.raises(UserError, match="--vary is"):
            read_vary(wrong)


def test_a_method_is_named_with_its_options():
    assert read_method("fedavg") == ("fedavg", "")
    assert read_method("fedprox: mu=0.1") == ("fedprox", "mu=0.1")
