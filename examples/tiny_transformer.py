"""A small transformer that reads a text character by character: entmax in its attention, and an entmax loss.

Both are sparse: a character attends to a few of those before it and to the rest not at all, and most characters are no
possible continuation. python examples/tiny_transformer.py --out pictures
"""

import argparse
import math
import time
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import torch
from matplotlib.colors import LinearSegmentedColormap
from torch import nn

import softplex as sx
from softplex.torch import Entmax15Loss, attention

TEXT = Path(__file__).with_name("text.txt")
CONTEXT, WIDTH, HEADS, LAYERS, BATCH, DROPPED = 64, 64, 4, 2, 32, 0.15
ATTENTION = sx.entmax15
INK, ACCENT, OTHER, MUTED, GRID = "#1f2430", "#0b6e99", "#d1782c", "#8a93a3", "#e3e6eb"
SHADES = LinearSegmentedColormap.from_list("shades", ["#cfe4f0", ACCENT, "#04202f"])


class Block(nn.Module):
    """Attention to what came before, then a layer on each character."""

    def __init__(self):
        super().__init__()
        self.before_attention, self.before_layer = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.project = nn.Linear(WIDTH, 3 * WIDTH)
        self.join = nn.Linear(WIDTH, WIDTH)
        self.drop = nn.Dropout(DROPPED)
        self.layer = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def heads(self, x):
        """Queries, keys and values: (batch, heads, length, features) each."""
        parts = self.project(self.before_attention(x)).chunk(3, dim=-1)
        return [part.unflatten(-1, (HEADS, -1)).transpose(-2, -3) for part in parts]

    def forward(self, x):
        """One step of thought."""
        seen = attention(*self.heads(x), map=ATTENTION, causal=True)
        x = x + self.drop(self.join(seen.transpose(-2, -3).flatten(-2)))
        return x + self.drop(self.layer(self.before_layer(x)))


class Reader(nn.Module):
    """Scores of the next character, at each position."""

    def __init__(self, characters):
        super().__init__()
        self.meaning = nn.Embedding(characters, WIDTH)
        self.place = nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last = nn.LayerNorm(WIDTH)
        self.scores = nn.Linear(WIDTH, characters)

    def forward(self, characters):
        """(batch, length) indices to (batch, length, characters) scores."""
        x = self.meaning(characters) + self.place[: characters.shape[-1]]
        for block in self.blocks:
            x = block(x)
        return self.scores(self.last(x))

    def attended(self, characters):
        """The attention weights of each layer: (layers, heads, length, length)."""
        x = self.meaning(characters) + self.place[: characters.shape[-1]]
        past = torch.ones(characters.shape[-1], characters.shape[-1], dtype=torch.bool).tril()
        maps = []
        for block in self.blocks:
            q, k, _ = block.heads(x)
            maps.append(ATTENTION(q @ k.mT / math.sqrt(q.shape[-1]), where=past)[0])
            x = block(x)
        return torch.stack(maps)


def windows(text, count):
    """Random pieces of the text, and the same one character on."""
    starts = torch.randint(len(text) - CONTEXT, (count, 1))
    pieces = text[starts + torch.arange(CONTEXT + 1)]
    return pieces[:, :-1], pieces[:, 1:]


def train(model, text, held_out, steps):
    """The losses: (step, on the text, on its held-out end) now and then."""
    loss_of = Entmax15Loss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    history = []
    for step in range(1, steps + 1):
        x, y = windows(text, BATCH)
        loss = loss_of(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step == 1 or step % max(1, steps // 40) == 0 or step == steps:
            history.append((step, *(evaluated(model, part, loss_of) for part in (text, held_out))))
    return history


@torch.no_grad()
def evaluated(model, text, loss_of):
    """The loss without dropout."""
    model.eval()
    x, y = windows(text, 48)
    loss = loss_of(model(x), y).item()
    model.train()
    return loss


@torch.no_grad()
def write(model, start, characters, length):
    """Let the model go on: entmax gives most characters no chance at all."""
    index = {c: i for i, c in enumerate(characters)}
    line = [index[c] for c in start]
    for _ in range(length):
        scores = model(torch.tensor([line[-CONTEXT:]]))[0, -1]
        line.append(torch.multinomial(sx.entmax15(scores), 1).item())
    return "".join(characters[i] for i in line)


@torch.no_grad()
def sparsity(model, text):
    """How many characters each position attends to, (layers, heads, length), and how many may come next, (length,)."""
    x, _ = windows(text, 32)
    sizes = torch.stack([(model.attended(each[None]) > 0).sum(-1) for each in x]).double().mean(dim=0)
    return sizes, sx.entmax15.support_size(model(x)).double().mean(dim=0)


def picture(history, weights, letters, sizes, path):
    """The loss, one attention map, and how many characters each position attends to."""
    plt.rcParams.update({"font.size": 9, "axes.edgecolor": MUTED, "text.color": INK, "axes.labelcolor": INK})
    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13.5, 4.6), gridspec_kw={"width_ratios": [1, 1.35, 1]}, layout="constrained"
    )
    steps, on_text, on_rest = zip(*history, strict=True)
    left.plot(steps, on_text, color=ACCENT, label="text")
    left.plot(steps, on_rest, color=MUTED, label="held-out end")
    left.set(title="entmax loss of the next character", xlabel="step", ylabel="Fenchel-Young loss", ylim=(0, None))
    left.legend(frameon=False)

    length = len(letters)
    shown = torch.where(weights > 0, weights, math.nan)
    image = middle.imshow(shown.numpy(), cmap=SHADES, vmin=0.0, vmax=1.0, interpolation="nearest")
    names = [{" ": "·", "\n": "¶"}.get(c, c) for c in letters]
    middle.set_xticks(range(length), names, fontsize=7, family="monospace")
    middle.set_yticks(range(length), names, fontsize=7, family="monospace")
    middle.set(title="weights of one head (white: exactly 0)", xlabel="attended to", ylabel="attending")
    figure.colorbar(image, ax=middle, shrink=0.8)

    positions = range(1, sizes.shape[-1] + 1)
    right.plot(positions, positions, color=GRID, linewidth=2)
    right.annotate("softmax: all of them", (42, 44), color=MUTED, rotation=38, ha="center", fontsize=8)
    for layer in range(sizes.shape[0]):
        for head in range(sizes.shape[1]):
            right.plot(positions, sizes[layer, head].numpy(), color=(ACCENT, OTHER)[layer % 2], alpha=0.75,
                       label=f"layer {layer + 1}" if head == 0 else None)  # fmt: skip
    right.set(title="characters with weight, by head", xlabel="characters so far", ylabel="of them attended to",
              xlim=(1, None), ylim=(0, None))  # fmt: skip
    right.legend(frameon=False, loc="upper left")
    for axes in (left, right):
        axes.grid(color=GRID, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    """Train, print a summary, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(), help="directory for the picture")
    parser.add_argument("--steps", type=int, default=800)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # products as small as these gain nothing from more
    began = time.perf_counter()

    text = TEXT.read_text(encoding="utf-8")
    characters = sorted(set(text))
    encoded = torch.tensor([characters.index(c) for c in text])
    cut = int(0.9 * len(encoded))
    model = Reader(len(characters))
    history = train(model, encoded[:cut], encoded[cut - CONTEXT :], options.steps)

    model.eval()
    sizes, choices = sparsity(model, encoded[:cut])
    start = "The river rose. "
    size = sum(p.numel() for p in model.parameters())
    print(f"{len(text)} characters, {len(characters)} different ones; {size} parameters")
    (_, first, _), (_, last, held_out) = history[0], history[-1]
    print(f"loss {first:.3f} before, {last:.3f} after {options.steps} steps; held out {held_out:.3f}")
    print(f"a position attends to {sizes[..., -1].mean():.1f} of the {CONTEXT} characters before it")
    print(f"of {len(characters)} characters {choices.mean():.1f} may come next")
    print(f"it writes: {write(model, start, characters, 120)!r}")

    at = text.index("He held the boat against")
    letters = text[at : at + 32]
    weights = model.attended(torch.tensor([[characters.index(c) for c in letters]])).detach()
    # The head whose weights are spread most evenly over several characters has the most to show.
    spread = (weights > 0).sum(-1).double().mean(-1)
    layer, head = divmod(int((spread - 4.0).abs().argmin()), HEADS)
    options.out.mkdir(parents=True, exist_ok=True)
    picture(history, weights[layer, head], letters, sizes, options.out / "tiny_transformer.png")
    print(f"{options.out / 'tiny_transformer.png'}; {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
