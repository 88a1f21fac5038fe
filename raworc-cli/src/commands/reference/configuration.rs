//! The page on the configuration.

use crate::settings::{Default, KEYS, Key, OTHER_VARIABLES};

const HEAD: &str = "# Configuration

<!-- Made from the code by `raworc reference configuration`; a test compares them. -->

A serving process (`raworc up`, `server`, `operator`, `quickstart`) reads its configuration from three places. What comes
later wins:

1. the file: `--config FILE`, else `RAWORC_CONFIG`, else `raworc.toml` in the working directory, else in
   `raworc` in `$XDG_CONFIG_HOME` or `~/.config`;
2. the environment: `RAWORC_` and the name of the key, with `__` for each dot; an empty
   variable counts as none;
3. options of the command.

A key that is not listed here is an error, in the file and in the environment.

## Keys

| Key | Default | Variable | Option | Meaning |
|---|---|---|---|---|
";

const MODELS: &str = "
## Further models

`[model]` is the model that agents think with. `[[models]]` adds others, with the same fields; an agent's spec chooses by
name.

```toml
[model]
name = \"gpt-oss:20b\"
url = \"http://127.0.0.1:11434\"

[[models]]
name = \"qwen3-coder\"
url = \"https://models.example.org/v1\"
wire = \"openai\"
context = 65536
key_file = \"/etc/raworc/model.key\"
```

## Private hosts that agents may reach

What a closed computer reaches stands in its agent's spec, `network.egress`. A name there that leads to an address which is
not public (private, loopback, link-local, a cloud's metadata, this machine's own) is refused all the same, unless the file
lists that name and where it may be. No spec can do that.

```toml
[[egress.private]]
host = \"packages.example.org\"        # or \"*.example.org\" for all below it
ranges = [\"10.1.0.0/16\"]
```

## Other variables

| Variable | Meaning |
|---|---|
";

pub(super) fn page() -> String {
    let mut page = HEAD.to_owned();
    for key in KEYS {
        let option = key.option.map(|option| format!("`{option}`")).unwrap_or_default();
        page.push_str(&format!(
            "| `{}` | {} | `{}` | {option} | {} |\n",
            key.name,
            default(key),
            key.variable(),
            key.help
        ));
    }
    page.push_str(MODELS);
    for (name, meaning) in OTHER_VARIABLES {
        page.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    page
}

fn default(key: &Key) -> String {
    match (key.default, key.value()) {
        (Default::Unset(what), _) => what.to_owned(),
        (_, Some(value)) => format!("`{value}`"),
        (_, None) => String::new(),
    }
}
