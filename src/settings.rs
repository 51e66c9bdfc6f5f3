//! Settings that come from a file: defaults of the command line's options.
//!
//! A file is TOML whose keys are the long names of options. Those outside any table are meant for every command that has
//! the option, those in the table of a command for that command:
//!
//! ```toml
//! model = "m3=/models/bge-reranker-v2-m3"
//! device = "cuda:0"
//!
//! [run]
//! unit-rows = 500_000
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

/// Commands whose options can be set.
const COMMANDS: &[&str] = &["run", "score", "sql"];

/// Options that are for one call: what to do, to what, and permissions to delete.
const NOT_SETTINGS: &[&str] = &[
    "command",
    "config",
    "dry-run",
    "file",
    "help",
    "json",
    "jsonl",
    "overwrite",
    "quiet",
    "report",
    "restart",
    "sql",
    "verbose",
    "version",
];

/// Name of the file in the current folder and in the user's.
const FILE: &str = "rerank.toml";

/// A file of settings.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) file: PathBuf,
    values: Table,
}

impl Settings {
    /// Reads `file`, or the file where one is looked for; `None` if there is none.
    pub(crate) fn find(file: Option<&Path>) -> Result<Option<Self>> {
        let file = match file {
            Some(file) => file.to_owned(),
            None => match places().into_iter().find(|place| place.is_file()) {
                Some(file) => file,
                None => return Ok(None),
            },
        };
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read settings {}", file.display()))?;
        let values = text.parse().with_context(|| format!("settings {} are no TOML", file.display()))?;
        Ok(Some(Self { file, values }))
    }

    /// The command line with the settings as defaults.
    ///
    /// # Errors
    /// A key that no command has, or a value that is no text, number, truth value or list of them.
    pub(crate) fn apply(&self, mut cli: Command) -> Result<Command> {
        let mut common = Vec::new();
        for (key, value) in &self.values {
            match value {
                Value::Table(table) if COMMANDS.contains(&key.as_str()) => {
                    for (name, value) in table {
                        if !set(&mut cli, key, name, value).with_context(|| self.place(name))? {
                            bail!("{}: {key} has no such setting; {}", self.place(name), known(&cli, &[key]));
                        }
                    }
                }
                Value::Table(_) => {
                    bail!(
                        "settings {}: there are no settings for [{key}]; there are for {}",
                        self.file.display(),
                        COMMANDS.join(", ")
                    );
                }
                value => common.push((key, value)),
            }
        }
        for (name, value) in common {
            let mut used = false;
            for command in COMMANDS {
                // A command's own table comes first.
                used |= self.has_own(command, name)
                    || set(&mut cli, command, name, value).with_context(|| self.place(name))?;
            }
            if !used {
                bail!("{}: no command has such a setting; {}", self.place(name), known(&cli, COMMANDS));
            }
        }
        Ok(cli)
    }

    /// Whether the file sets this option of a command.
    pub(crate) fn sets(&self, command: &str, name: &str) -> bool {
        self.has_own(command, name) || self.values.contains_key(name)
    }

    /// Whether the table of a command has this option.
    fn has_own(&self, command: &str, name: &str) -> bool {
        self.values.get(command).and_then(Value::as_table).is_some_and(|own| own.contains_key(name))
    }

    fn place(&self, name: &str) -> String {
        format!("settings {}: {name}", self.file.display())
    }
}

/// What is wrong with a value, without the advice on usage that follows.
pub(crate) fn first_paragraph(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    paragraph.strip_prefix("error: ").unwrap_or(paragraph).to_owned()
}

/// The options of a command that are settings.
pub(crate) fn options_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some_and(|name| !NOT_SETTINGS.contains(&name)))
}

/// The commands that have settings, as far as the program was built with them.
pub(crate) fn commands(cli: &Command) -> impl Iterator<Item = &Command> {
    COMMANDS.iter().filter_map(|name| cli.find_subcommand(name))
}

/// Where files are looked for.
fn places() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    [Some(PathBuf::from(FILE)), user.map(|folder| folder.join("rerank").join(FILE))].into_iter().flatten().collect()
}

/// Makes a value the default of a command's option; whether the command has it.
fn set(cli: &mut Command, command: &str, name: &str, value: &Value) -> Result<bool> {
    let Some(subcommand) = cli.find_subcommand(command) else { return Ok(false) };
    let Some(option) = options_of(subcommand).find(|option| option.get_long() == Some(name)) else { return Ok(false) };
    let id = option.get_id().to_string();
    let is_flag = matches!(option.get_action(), ArgAction::SetTrue);
    let values = match value {
        Value::Array(values) => values.iter().map(text).collect::<Result<Vec<_>>>()?,
        value => vec![text(value)?],
    };
    if is_flag && !value.is_bool() {
        bail!("got {value}, expected true or false");
    }
    *cli = std::mem::take(cli)
        .mut_subcommand(command, |subcommand| subcommand.mut_arg(id, |option| option.default_values(values)));
    Ok(true)
}

fn text(value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(value.to_string()),
        value => Err(anyhow!("got {value}, expected a text, a number, true or false, or a list of them")),
    }
}

/// The names of settings, for messages.
fn known(cli: &Command, commands: &[&str]) -> String {
    let commands = commands.iter().filter_map(|name| cli.find_subcommand(name));
    let mut names: Vec<&str> = commands.flat_map(options_of).filter_map(Arg::get_long).collect();
    names.sort_unstable();
    names.dedup();
    format!("settings are {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::args::{Cli, Command as Parsed};

    fn parse(settings: &str, line: &str) -> Result<Cli> {
        let settings = Settings { file: "rerank.toml".into(), values: settings.parse()? };
        let matches = settings.apply(Cli::command())?.try_get_matches_from(line.split(' '))?;
        Ok(Cli::from_arg_matches(&matches)?)
    }

    #[test]
    fn the_command_line_comes_before_the_file_and_a_table_before_the_rest() {
        let settings =
            "model = 'm3'\nnormalize = true\nthreads = 1\ncutoff-layers = [8, 16]\n[run]\nthreads = 2\nunit-rows = 7";
        let Parsed::Run(run) = parse(settings, "rerank run in out --model mine").unwrap().command else { panic!() };
        assert_eq!((run.model.model.as_deref(), run.unit_rows, run.engine.threads), (Some("mine"), 7, Some(2)));
        assert_eq!(
            run.options.flags,
            [("normalize", serde_json::json!(true)), ("cutoff_layers", serde_json::json!([8, 16]))]
        );
        let Parsed::Score(score) = parse(settings, "rerank score a b").unwrap().command else { panic!() };
        assert_eq!((score.model.model.as_deref(), score.engine.threads), (Some("m3"), Some(1)));
    }

    #[test]
    fn what_is_no_setting_is_named() {
        let error = |settings: &str| format!("{:#}", parse(settings, "rerank score a b").unwrap_err());
        let unknown = error("devise = 'cpu'");
        assert!(unknown.starts_with("settings rerank.toml: devise: no command has such a setting; settings are "));
        assert!(unknown.contains(", device, "), "{unknown}");
        assert!(error("overwrite = true").contains("overwrite: no command has such a setting"));
        assert!(error("[score]\nunit-rows = 1").contains("unit-rows: score has no such setting"));
        assert!(error("[models]\na = 1").contains("there are no settings for [models]; there are for run, score, sql"));
        assert!(error("threads = { a = 1 }").contains("there are no settings for [threads]"));
        assert!(error("normalize = 'yes'").contains("got \"yes\", expected true or false"));
        assert!(error("threads = 'many'").contains("invalid value 'many' for '--threads"));
        assert!(error("threads = [[1]]").contains("expected a text"));
    }

    #[test]
    fn every_setting_belongs_to_a_command_line_option() {
        let cli = Cli::command();
        for name in NOT_SETTINGS {
            let has = |command: &Command| command.get_arguments().any(|option| option.get_long() == Some(name));
            let generated = ["help", "version"].contains(name);
            let optional = cfg!(not(feature = "shell")) && ["command", "file"].contains(name);
            assert!(generated || optional || has(&cli) || commands(&cli).any(has), "{name}");
        }
    }
}
