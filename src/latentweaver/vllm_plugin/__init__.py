"""Recurrent depth in vLLM: what its plugin loader calls, through the entry point `vllm.general_plugins`.

Install latentweaver where vLLM is installed and it is there:

    LLM("path/to/a/recurrent-depth/checkpoint", hf_overrides={"num_steps": 8})

The depth is fixed for an engine: vLLM assumes one for all tokens. For a dial per request or token there is `lw serve`.
docs/vllm.md says what has been tested.
"""


def register() -> None:
    """Make the configuration known to transformers and the model to vLLM; called once in every process, may be called again."""
    from vllm import ModelRegistry  # pyright: ignore[reportMissingImports]

    import latentweaver.models.config  # noqa: F401  (registers the configuration)

    if "RecurrentDepthForCausalLM" not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model("RecurrentDepthForCausalLM", "latentweaver.vllm_plugin.model:FixedDepthForCausalLM")
