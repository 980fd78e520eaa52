"""What `lw think` does with a model of graph search: the frontier, thought by thought, and then the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from latentweaver.tasks.graph_search import GraphSearch


def task_of(model: Any) -> GraphSearch | None:
    """The graph search that a model was trained for, as its configuration says; None for any other model."""
    about = getattr(model.config, "task", None)
    if not isinstance(about, dict) or about.get("name") != "graph_search":
        return None
    from latentweaver.tasks.graph_search import GraphSearch
    from latentweaver.tasks.graphs import GraphMaker

    about = {field: value for field, value in about.items() if field != "name"}
    return GraphSearch(names=about.pop("names"), maker=GraphMaker(**{**about, "hops": (about["hops"], about["hops"])}))


def search(model: Any, task: GraphSearch, text: str, thoughts: int | None, console: Console) -> None:
    """Print what `read` says about every node after each thought, and the answer.

    Raises:
        InputError: if the text is no question about a graph.
    """
    import torch

    from latentweaver.commands.common import many
    from latentweaver.console import Frontier
    from latentweaver.tasks.graph_search import LETTERS, Question

    question = Question.parse(text, task.names)
    thoughts = int(model.config.num_steps) if thoughts is None else thoughts
    view = Frontier(LETTERS, question.edges, question.root, question.distance)
    with torch.no_grad():
        thought = model.begin(torch.tensor([task.ask(question)], device=model.device))
        view.add("at once", _nodes(model, thought, task))
        for count in range(1, thoughts + 1):
            thought = model.think(thought)
            if count < thoughts:
                view.add(f"after {count}", _nodes(model, thought, task))
        said = model.begin(torch.tensor([[task.answer]], device=model.device), after=thought)
        answer = _nodes(model, said, task)
    console.print(view.table(console.width))
    best = max(range(task.names), key=answer.__getitem__)
    first, second = (f"{LETTERS[node]} {answer[node]:.1%}" for node in sorted(question.candidates, key=lambda node: -answer[node]))
    console.print(
        f"[bold]{LETTERS[best]}[/bold]  [dim]after {many(thoughts, 'thought')}, asked which of the two: {first}, {second}[/dim]\n"
    )


def _nodes(model: Any, thought: Any, task: GraphSearch) -> list[float]:
    return model.read(thought).logits[0, -1, : task.names].softmax(-1).tolist()
