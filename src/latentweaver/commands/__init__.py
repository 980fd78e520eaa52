"""The subcommands of `lw`, one file for each: thin calls into the library. Nothing heavy is imported before one runs."""
