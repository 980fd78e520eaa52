"""A reasoner in one file: which nodes of a graph can be reached? One think call walks one edge further.

The input is a list of tokens: the edges as pairs (from, to), then the node to start at. The latent state is one vector with a
number for each node, 1 where it has been reached. No weights, nothing to train: the recurrence is right by construction.
"""

import torch
from torch import Tensor

import latentweaver as lw


class Reachability:
    """begin reads the edges, think walks one edge from every reached node, read says which nodes are reached."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def begin(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        initial_state: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> lw.Thought:
        if input_ids.shape[1] % 2 == 0:
            raise lw.InputError(f"expected pairs of nodes and one start, got {input_ids.shape[1]} tokens")
        batch = input_ids.shape[0]
        edges = input_ids[:, :-1].view(batch, -1, 2)
        matrix = torch.eye(self.nodes).repeat(batch, 1, 1)  # a node reaches itself
        matrix[torch.arange(batch)[:, None], edges[..., 0], edges[..., 1]] = 1
        start = torch.nn.functional.one_hot(input_ids[:, -1:], self.nodes).float()
        return lw.Thought.start(start if initial_state is None else initial_state, anchor={"edges": matrix})

    def think(self, thought: lw.Thought) -> lw.Thought:
        return thought.advance((thought.state @ thought.anchor["edges"]).clamp(max=1))

    def read(self, thought: lw.Thought) -> lw.Readout:
        return lw.Readout(logits=torch.log(thought.state + 1e-9))


def main() -> None:
    model = Reachability(nodes=6)
    chain = [0, 1, 1, 2, 2, 3, 3, 4, 0]  # 0 -> 1 -> 2 -> 3 -> 4, start at 0
    star = [5, 0, 5, 1, 5, 2, 5, 3, 5]  # 5 -> 0, 1, 2, 3, start at 5
    thought = model.begin(torch.tensor([chain, star]))

    # by hand: three steps
    for _ in range(3):
        thought = model.think(thought)
    print("after 3 steps the chain has reached", thought.state[0, 0].nonzero().flatten().tolist())

    # with a halting rule: each row stops when a step changes nothing; the watcher records every state
    states: list[Tensor] = []
    rule = lw.halting.StateChange(threshold=0.01)
    start = model.begin(torch.tensor([chain, star]))
    settled = lw.think_until(model, start, rule, max_steps=32, watch=lambda thought: states.append(thought.state))
    print("steps until nothing changes:", settled.step[:, 0].tolist(), "rows computed at each step:", [len(state) for state in states])
    print("reached:", [row.nonzero().flatten().tolist() for row in model.read(settled).logits[:, 0].exp().round()])


if __name__ == "__main__":
    main()
