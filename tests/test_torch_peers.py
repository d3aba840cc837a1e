"""softplex on tensors beside torch and the entmax package: the same where they are right, and a list of where not.

Both sides compute in float64 and are wrong by a few ULP each; BOUND says how far apart they may be, relative to the
largest weight of the row, its largest score (losses) or its largest cotangent (gradients). How far softplex is from the
exact result is tested elsewhere, without peers.
"""

import functools
from importlib import metadata

import pytest

import softplex as sx

torch = pytest.importorskip("torch", reason="torch is not installed")

EPSILON = 2.0**-52
BOUND = {"closed form": 64 * EPSILON, "bisection": 1024 * EPSILON}
ENTMAX, TORCH = "1.3", "2.13"
ALPHAS = (1.2, 1.3, 1.5, 1.7, 1.9, 2.0)
NORMMAX_ALPHAS = (1.2, 1.5, 2.0, 3.0)
ROWS, CLASSES = 40, 12


@pytest.fixture
def entmax():
    return pytest.importorskip("entmax", reason="the entmax package is not installed")


def known(package, version):
    """Marks what is said of one version of a peer: another may have mended it."""
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        return pytest.mark.skip(reason=f"{package} is not installed")
    is_known = found.split("+")[0].startswith(version)
    return pytest.mark.skipif(not is_known, reason=f"this is {package} {found}; it was seen in {version}")


def random(*shape, seed=0, scale=2.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(seed=5):
    return torch.randint(CLASSES, (ROWS,), generator=torch.Generator().manual_seed(seed))


def assert_near(found, wanted, bound, scale):
    """Within the bound of the scale, which broadcasts."""
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    worst = ((found - wanted).abs() / (bound * scale)).max()
    assert worst <= 1, f"{worst:.3g} times the bound apart"


def largest(tensor, dim=-1):
    return tensor.abs().amax(dim=dim, keepdim=True) if tensor.dim() else tensor.abs()


def assert_same(ours, theirs, kind, *, dim=-1, seed=0, is_loss=False):
    """Values and first gradients, for the same random cotangent."""
    x = random(ROWS, CLASSES, seed=seed).requires_grad_()
    values = [function(x) for function in (ours, theirs)]
    g = random(*values[0].shape, seed=seed + 1, scale=1.0)
    gradients = [torch.autograd.grad(value, x, g)[0] for value in values]
    is_row = g.dim() < x.dim()
    terms = largest(x.detach(), dim).reshape(-1) if is_loss else largest(values[1].detach(), dim)
    assert_near(*values, BOUND[kind], terms if g.dim() else terms.sum())
    assert_near(*gradients, BOUND[kind], g.abs().reshape(-1, 1) if is_row else largest(g, dim))


# Where peers are right.


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dim", [-1, 0])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin"])
def test_torch_has_the_same_softmax(name, dim, seed):
    theirs = getattr(torch.nn.functional, name)
    assert_same(lambda x: getattr(sx, name)(x, dim), lambda x: theirs(x, dim=dim), "closed form", dim=dim, seed=seed)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(
    "options",
    [{}, {"label_smoothing": 0.1}, {"weight": True}, {"ignore_index": 3}, {"weight": True, "label_smoothing": 0.3}],
    ids=str,
)
def test_torch_has_the_same_cross_entropy(options, reduction):
    if "weight" in options:
        options = options | {"weight": torch.linspace(0.1, 1.2, CLASSES, dtype=torch.float64)}
    for y in (labels(), torch.softmax(random(ROWS, CLASSES, seed=8), dim=-1)):
        if y.is_floating_point() and "ignore_index" in options:
            continue
        ours, theirs = [
            lambda x, loss=loss, y=y: loss(x, y, reduction=reduction, **options)
            for loss in (sx.cross_entropy, torch.nn.functional.cross_entropy)
        ]
        assert_same(ours, theirs, "closed form", is_loss=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("dim", [-1, 0])
@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
def test_entmax_has_the_same_sparse_maps(entmax, name, dim, seed):
    theirs = getattr(entmax, name)
    assert_same(lambda x: getattr(sx, name)(x, dim), lambda x: theirs(x, dim=dim), "closed form", dim=dim, seed=seed)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_entmax_has_the_same_entmax(entmax, alpha):
    assert_same(lambda x: sx.entmax(x, alpha=alpha), lambda x: entmax.entmax_bisect(x, alpha), "bisection")


@pytest.mark.parametrize("alpha", ALPHAS)
def test_entmax_has_the_same_gradient_for_alpha(entmax, alpha):
    gradients = []
    for function in (lambda x, alpha: sx.entmax(x, alpha=alpha), entmax.entmax_bisect):
        exponents = torch.full((ROWS, 1), alpha, dtype=torch.float64, requires_grad=True)
        p = function(random(ROWS, CLASSES), exponents)
        gradients += torch.autograd.grad(p, exponents, random(ROWS, CLASSES, seed=1))
    assert_near(*gradients, BOUND["bisection"], gradients[1].abs().max())


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_entmax_has_the_same_budget(entmax, budget):
    assert_same(lambda x: sx.budget(x, budget=budget), lambda x: entmax.budget_bisect(x, budget), "bisection")


@pytest.mark.parametrize("alpha", NORMMAX_ALPHAS)
def test_entmax_has_the_same_normmax(entmax, alpha):
    assert_same(lambda x: sx.normmax(x, alpha=alpha), lambda x: entmax.normmax_bisect(x, alpha), "bisection")


LOSSES = [
    ("sparsemax_loss", sx.sparsemax, (), "closed form"),
    ("entmax15_loss", sx.entmax15, (), "closed form"),
    ("sparsemax_bisect_loss", sx.sparsemax, (), "bisection"),
    *[("entmax_bisect_loss", sx.entmax.bind(alpha=alpha), (alpha,), "bisection") for alpha in ALPHAS],
    *[("normmax_bisect_loss", sx.normmax.bind(alpha=alpha), (alpha,), "bisection") for alpha in NORMMAX_ALPHAS],
]


@pytest.mark.parametrize(("name", "map_", "hyper", "kind"), LOSSES, ids=str)
def test_entmax_has_the_same_losses(entmax, name, map_, hyper, kind):
    def theirs(x):
        return getattr(entmax, name)(x, labels(), *hyper)

    def ours(x):
        return map_.loss(x, labels(), reduction="none")

    assert_same(ours, theirs, kind, is_loss=True)


# Where they are not: what each peer does in the version named, and what softplex does.


def is_right_twice(function):
    x = random(3, 6, scale=1.0).requires_grad_()
    return torch.autograd.gradgradcheck(function, (x,), raise_exception=False)


@known("entmax", ENTMAX)
def test_second_derivatives(entmax):
    assert not is_right_twice(entmax.entmax15)
    assert is_right_twice(sx.entmax15)


@known("entmax", ENTMAX)
@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, on the first jvp
def test_transforms(entmax, name):
    theirs, ours = getattr(entmax, name), getattr(sx, name)
    x, t = random(3, 6), random(3, 6, seed=1)
    for transform in (torch.func.jacrev, torch.func.hessian, torch.vmap):
        with pytest.raises(RuntimeError, match="setup_context"):
            transform(theirs)(x)
    with pytest.raises(RuntimeError, match="setup_context"):
        torch.func.jvp(theirs, (x,), (t,))
    assert_near(torch.vmap(ours)(x), theirs(x, dim=-1), BOUND["closed form"], 1.0)
    tangent = torch.func.jvp(ours, (x,), (t,))[1]
    product = torch.stack([J @ v for J, v in zip(ours.jacobian(x), t, strict=True)])
    assert_near(tangent, product, BOUND["closed form"], largest(t))


@known("entmax", ENTMAX)
@pytest.mark.parametrize("name", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("bad", [-torch.inf, torch.nan])
def test_rows_with_nothing_to_weigh(entmax, name, bad):
    x = torch.tensor([[bad, bad], [0.5, 0.0]], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="index -1 is out of bounds"):
        getattr(entmax, name)(x)
    x.requires_grad_()
    p = getattr(sx, name)(x)
    p[:, 0].sum().backward()
    assert torch.isfinite(p[1]).all() and torch.isfinite(x.grad[1]).all()
    if bad == -torch.inf:
        assert (p[0] == 0).all() and (x.grad[0] == 0).all()
    else:
        assert p[0].isnan().all()


@known("entmax", ENTMAX)
def test_rows_with_nothing_to_weigh_by_bisection(entmax):
    x = torch.full((1, 3), -torch.inf, dtype=torch.float64)
    assert entmax.entmax_bisect(x, 1.3).isnan().all()
    assert (sx.entmax(x, alpha=1.3) == 0).all()


@known("entmax", ENTMAX)
def test_alpha_of_softmax(entmax):
    x, g = random(2, 5), random(2, 5, seed=1)
    gradients = []
    for function in (lambda alpha: sx.entmax(x, alpha=alpha), functools.partial(entmax.entmax_bisect, x)):
        alpha = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
        p = function(alpha)
        gradients += torch.autograd.grad(p, alpha, g)
    assert (p == 0.2).all() and gradients[1].isnan()
    # d p_i / d alpha at 1 is p_i (sum_j p_j log^2 p_j - log^2 p_i) / 2.
    p = torch.softmax(x, dim=-1)
    squares = torch.log(p).square()
    wanted = (g * p * ((p * squares).sum(dim=-1, keepdim=True) - squares)).sum() / 2
    assert abs(gradients[0] - wanted) <= BOUND["closed form"] * abs(wanted)


@known("entmax", ENTMAX)
def test_ignored_rows(entmax):
    x, y = random(3, 4).requires_grad_(), torch.tensor([0, -100, 2])
    with pytest.raises(RuntimeError, match="out of bounds"):
        entmax.SparsemaxLoss(ignore_index=-100)(x, y)
    loss = sx.sparsemax_loss(x, y, ignore_index=-100)
    loss.backward()
    kept = entmax.SparsemaxLoss()(x[[0, 2]], y[[0, 2]])
    assert abs(loss - kept) <= BOUND["closed form"] * kept and (x.grad[1] == 0).all()


@known("entmax", ENTMAX)
def test_the_shortened_search_along_other_dimensions(entmax):
    x = random(3, 6, 4)
    with pytest.raises(RuntimeError):
        entmax.sparsemax(x, dim=-2, k=2)
    assert_near(sx.sparsemax(x, -2), entmax.sparsemax(x, dim=-2), BOUND["closed form"], 1.0)


@known("torch", TORCH)
def test_logarithms_of_confident_rows():
    x = torch.tensor([0.0, -40.0], dtype=torch.float64)
    assert torch.log_softmax(x, dim=0)[0] == 0.0
    wanted = -torch.log1p(torch.exp(x[1]))
    assert abs(sx.log_softmax(x)[0] - wanted) <= 4 * EPSILON * abs(wanted)


@known("torch", TORCH)
def test_the_mean_of_an_ignored_batch():
    x, y = random(2, 3).requires_grad_(), torch.tensor([-100, -100])
    assert torch.nn.functional.cross_entropy(x, y).isnan()
    loss = sx.cross_entropy(x, y)
    loss.backward()
    assert loss == 0 and (x.grad == 0).all()


@known("torch", TORCH)
def test_rows_that_are_all_minus_infinity():
    x = torch.full((1, 3), -torch.inf, dtype=torch.float64, requires_grad=True)
    assert torch.softmax(x, dim=-1).isnan().all()
    p = sx.softmax(x)
    p[:, 0].sum().backward()
    assert (p == 0).all() and (x.grad == 0).all()


def test_what_is_said_of_one_version_is_not_asked_of_others():
    assert known("no such package", "1").name == "skip"
    assert known("torch", "0.").args == (True,)
