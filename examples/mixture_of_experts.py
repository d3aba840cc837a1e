"""A mixture of experts whose router chooses how many experts a point needs: sparsemax switches the others off.

A function of the plane that is made of different pieces is learned by twelve small networks and a router. With softmax
every point goes to all of them; with sparsemax to as few as it needs, one inside a piece and more along the seams.
python examples/mixture_of_experts.py --out pictures
"""

import argparse
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from torch import nn

import softplex as sx
from softplex.torch import Router

EXPERTS, HIDDEN, FEATURES, BATCH = 12, 12, 32, 512
INK, ACCENT, OTHER, MUTED, GRID = "#1f2430", "#0b6e99", "#d1782c", "#8a93a3", "#e3e6eb"


def target(x):
    """Waves, a slope, a bowl and a plain, each in its quarter; and a disc of its own in the middle."""
    a, b = x[..., 0], x[..., 1]
    left = torch.where(b > 0, torch.sin(9 * a) * 0.8, 1.6 * (a + 0.5) - 0.8 * b)
    right = torch.where(b > 0, 3 * ((a - 0.5) ** 2 + (b - 0.5) ** 2) - 0.6, torch.full_like(a, -0.5))
    return torch.where(a**2 + b**2 < 0.16, torch.full_like(a, 1.0), torch.where(a < 0, left, right))


class Mixture(nn.Module):
    """Experts, each a network with one hidden layer, and a router that sees features of the point."""

    def __init__(self, chosen):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(2, FEATURES), nn.Tanh(), nn.Linear(FEATURES, FEATURES), nn.Tanh())
        self.router = Router(FEATURES, EXPERTS, map=chosen, bias=True)
        self.into = nn.Parameter(torch.randn(EXPERTS, 2, HIDDEN) * 1.5)
        self.shift = nn.Parameter(torch.randn(EXPERTS, HIDDEN))
        self.out = nn.Parameter(torch.randn(EXPERTS, HIDDEN) / HIDDEN**0.5)
        self.level = nn.Parameter(torch.zeros(EXPERTS))

    def forward(self, x):
        """What the experts say, weighed; and where the points went."""
        routing = self.router(self.features(x))
        hidden = torch.tanh(torch.einsum("ni,eih->neh", x, self.into) + self.shift)
        said = torch.einsum("neh,eh->ne", hidden, self.out) + self.level
        return (routing.weights * said).sum(dim=-1), routing


def train(chosen, steps):
    """The model, and (step, error, experts a point) now and then."""
    torch.manual_seed(2)
    model = Mixture(chosen)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    history = []
    for step in range(1, steps + 1):
        x = 2 * torch.rand(BATCH, 2) - 1
        found, routing = model(x)
        error = (found - target(x)).square().mean()
        loss = error + 0.003 * routing.balance_loss  # a little, lest one expert should take all
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step == 1 or step % max(1, steps // 80) == 0:
            history.append((step, error.item(), routing.experts_per_token.item()))
    return model, history


@torch.no_grad()
def over_the_plane(model, side):
    """On a grid: what the model says, how many experts each point goes to, and the one that weighs most."""
    line = torch.linspace(-1, 1, side)
    x = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)
    found, routing = model(x.reshape(-1, 2))
    used = (routing.weights > 0).sum(dim=-1)
    return target(x), *(each.reshape(side, side) for each in (found, used, routing.weights.argmax(dim=-1))), routing


def picture(sparse, histories, path):
    """The function, who answers for what, how many experts are used where, and over training."""
    plt.rcParams.update({"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK})
    wanted, found, used, first, _ = sparse
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 7.4), layout="constrained")
    plane = {"origin": "lower", "extent": (-1, 1, -1, 1), "interpolation": "nearest"}
    for at, values, title in (
        (axes[0, 0], wanted, "the function"),
        (axes[0, 1], found, "what sparsemax's experts learned"),
    ):
        image = at.imshow(values.numpy(), cmap="cividis", vmin=-1.2, vmax=1.2, **plane)
        at.set_title(title)
    figure.colorbar(image, ax=axes[0, 1], shrink=0.85)
    most = int(used.max())
    shades = ListedColormap(plt.get_cmap("Blues")([0.12 + 0.8 * n / max(1, most - 1) for n in range(most)]))
    image = axes[1, 0].imshow(
        used.numpy(), cmap=shades, norm=BoundaryNorm([n + 0.5 for n in range(most + 1)], most), **plane
    )
    figure.colorbar(image, ax=axes[1, 0], shrink=0.85, ticks=range(1, most + 1))
    axes[1, 0].set_title(f"experts switched on (of {EXPERTS})")
    axes[0, 2].imshow(first.numpy(), cmap="tab20", vmin=-0.5, vmax=19.5, **plane)
    axes[0, 2].set_title("the expert that weighs most")
    for each in (*axes[0], axes[1, 0]):
        each.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    for (name, history), color in zip(histories.items(), (ACCENT, OTHER), strict=True):
        steps, errors, counts = zip(*history, strict=True)
        axes[1, 1].plot(steps, counts, color=color, label=name)
        axes[1, 2].semilogy(steps, errors, color=color, label=name)
    axes[1, 1].set(title="experts a point goes to, over training", xlabel="step", ylim=(0, EXPERTS + 0.5))
    axes[1, 2].set(title="mean squared error, over training", xlabel="step")
    for each in axes[1, 1:]:
        each.legend(frameon=False)
        each.grid(color=GRID, linewidth=0.6)
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    """Train with both maps, print a summary, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="directory for the picture")
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    torch.set_num_threads(1)  # products as small as these gain nothing from more
    began = time.perf_counter()
    histories, planes = {}, {}
    print(f"{EXPERTS} experts; after {options.steps} steps:")
    for chosen in (sx.sparsemax, sx.softmax):
        model, histories[chosen.name] = train(chosen, options.steps)
        planes[chosen.name] = wanted, found, used, _, routing = over_the_plane(model, 160)
        error = (found - wanted).square().mean().item()
        off = int((routing.fraction == 0).sum())
        print(f"{chosen.name:10} error {error:.4f}; a point goes to {used.double().mean():.2f} experts, "
              f"at most {used.max()}; {(used == 1).double().mean():.0%} of the plane to one alone; "
              f"{off} experts switched off everywhere")  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    picture(planes["sparsemax"], histories, options.out / "mixture_of_experts.png")
    print(f"{options.out / 'mixture_of_experts.png'}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
